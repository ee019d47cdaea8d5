"""Accepts arrays of NumPy, JAX and torch, and says what integers mean as audio."""

import sys
from typing import Any

import jax
import numpy as np

from earvae_jax.errors import UserError


def numeric_array(values: Any, what: str) -> np.ndarray | jax.Array:
    """Returns `values` as an array of floats or integers that JAX accepts; a JAX array stays as it is.

    A torch tensor is detached from its gradient, and its floats become float32.

    Args:
      what: names the values in messages.

    Raises:
      UserError: the values are bool, complex, text or objects, are masked, or are not an array at all.
    """
    array = values if isinstance(values, jax.Array) else _numpy(values, what)
    if is_floating(array.dtype) or jax.dtypes.issubdtype(array.dtype, np.integer):
        return array
    if isinstance(values, (np.ndarray, jax.Array)) or array.dtype.kind in "bc":
        raise UserError(f"{what}: {array.dtype} values; expected real numbers")
    raise UserError(f"{what}: a {_kind(values)} is not an array of numbers")


def host_array(values: Any, what: str) -> np.ndarray:
    """Like `numeric_array`, but in this process's memory.

    Raises:
      UserError: also inside `jit`, and for an array that is partly on devices of other processes.
    """
    if isinstance(values, jax.core.Tracer):
        raise UserError(f"{what}: the codec cannot run inside jit; the model's own encode and decode can")
    array = numeric_array(values, what)
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        raise UserError(f"{what}: a part of the array is on devices of other processes: gather it first")
    return np.asarray(array)


def is_floating(dtype: np.dtype) -> bool:
    """Whether the values are real floating-point numbers; those of bfloat16 and similar types are."""
    return jax.dtypes.issubdtype(dtype, np.floating)


def full_scale(dtype: np.dtype) -> int:
    """Full scale of integer PCM, 2^(bits − 1): it stands for 1, in unsigned PCM for 0.

    Raises:
      UserError: the type does not have 8, 16 or 32 bits. 64 bits are NumPy's default for all integers, so
        they do not tell which full scale is meant.
    """
    bits = 8 * dtype.itemsize
    if bits not in (8, 16, 32) or dtype.kind not in "iu":
        raise UserError(
            f"audio is {dtype}, which has no full scale of its own: convert it to the type that the "
            "samples had, as in audio.astype('int16')"
        )
    return 1 << (bits - 1)


def _numpy(values: Any, what: str) -> np.ndarray:
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    try:
        if torch is not None and isinstance(values, torch.Tensor):
            values = values.detach().cpu()
            # NumPy has no bfloat16 for torch.
            return (values.float() if values.is_floating_point() else values).numpy()
        array = np.asarray(values)
    # Lists of unequal lengths, sparse tensors, and whatever another library's arrays raise.
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{what}: a {_kind(values)} is not an array of numbers ({reason})") from None
    if np.ma.is_masked(values):
        raise UserError(f"{what}: some values are masked; fill them first, as in filled(0)")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _kind(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
