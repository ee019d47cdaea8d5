"""Latents as an input of the codec: `Latents`, arrays and paths."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from earvae_jax.arrays import host_array, is_floating
from earvae_jax.errors import UserError
from earvae_jax.infer.inputs.audio import local_path
from earvae_jax.infer.latents import Latents, read_latents


@dataclasses.dataclass(frozen=True)
class LatentInput:
    """The latents of one piece, not read yet.

    Attributes:
      read: reads them.
      shown: how an error message about them begins.
    """

    read: Callable[[], Latents]
    shown: str = ""


def latent_input(given: Any, *, dim: int, describe: Callable[[np.ndarray], Latents]) -> LatentInput:
    """Takes the `Latents` of a codec, the path of a latent file, or an array of floats [N, D].

    Args:
      dim: the model's D.
      describe: makes `Latents` of a plain array.

    Raises:
      UserError: an array holds integers, has another shape or is not finite. Files are checked at reading.
    """
    if isinstance(given, Latents):
        return LatentInput(lambda: given)
    if isinstance(given, (str, os.PathLike)):
        path = local_path(given, "latents")
        return LatentInput(functools.partial(read_latents, path), str(path))
    array = _values(given, dim)
    return LatentInput(lambda: describe(array))


def _values(given: Any, dim: int) -> Float[np.ndarray, "N D"]:
    array = host_array(given, "latents")
    if not is_floating(array.dtype):
        raise UserError(f"latents are {array.dtype}; expected floats, as integers have no known scale")
    shape = list(array.shape)
    if array.ndim == 3:
        raise UserError(
            f"latents have shape {shape}; expected [latents, {dim}]: pass a batch as a list of arrays"
        )
    if array.ndim != 2 or not len(array):
        raise UserError(f"latents have shape {shape}; expected [latents, {dim}]")
    if shape[1] != dim and shape[0] == dim:
        raise UserError(
            f"latents have shape {shape}; expected [latents, {dim}]: transpose them, as in latents.T"
        )
    with np.errstate(over="ignore"):
        array = np.asarray(array, np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"latents hold {int(np.sum(~np.isfinite(array)))} NaN or infinite values")
    return array
