"""The names of the weights: published PyTorch keys to this project's array names, and back.

Modules carry the same names on both sides, so a key and a name share everything but their last part. One
table says how the last part and the layout of the array change.
"""

import functools
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig
from earvae_jax.parameters import differences, expected_arrays


class Layout(NamedTuple):
    """How an array is laid out on both sides; each function undoes the other."""

    to_jax: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda a: a, lambda a: a)
REVERSED = Layout(np.transpose, np.transpose)  # [O, I] and [I, O]; [O, I, K] and [K, I, O]
TRANSPOSED = Layout(lambda a: a.transpose(2, 0, 1), lambda a: a.transpose(1, 2, 0))  # [I, O, K] and [K, I, O]
GAIN = Layout(lambda a: a.reshape(-1), lambda a: a.reshape(-1, 1, 1))
FILTER = Layout(lambda a: a.reshape(-1), lambda a: a.reshape(1, 1, -1))

# The modules that a row is for (empty: all), the last part of the key, the last part of the name, the layout.
# The first row that fits counts.
TABLE = (
    ("", "weight_g", "gain", GAIN),
    (r"decoder\.layers\.\d+\.layers\.1", "weight_v", "direction", TRANSPOSED),
    ("", "weight_v", "direction", REVERSED),
    ("", "upsample.filter", "upsample_filter", FILTER),
    ("", "downsample.lowpass.filter", "downsample_filter", FILTER),
    (r".*\.([qk]_norm|emb)", "weight", "weight", SAME),
    ("", "weight", "weight", REVERSED),
    *(("", part, part, SAME) for part in ("bias", "alpha", "beta", "gamma", "inv_freq", "scale")),
)

# Both activations of a residual unit are one module; the file has its parameters under both keys.
_TIED = re.compile(r"((?:encoder|decoder)\.layers\.\d+\.layers\.\d+\.layers)\.0\.(alpha|beta)")


class Tensor(NamedTuple):
    """What a published state dict holds under one key."""

    name: str  # of the array here
    layout: Layout
    shape: tuple[int, ...]  # in PyTorch
    dtype: np.dtype


@functools.lru_cache(maxsize=8)  # tracing a whole model takes a second
def torch_tensors(config: ModelConfig) -> Mapping[str, Tensor]:
    """Every key of the state dict of a model of this config, both keys of tied parameters included."""
    tensors = {}
    for name, array in expected_arrays(config).items():
        key, layout = _key(name)
        shape = layout.to_torch(np.broadcast_to(np.float32(0), array.shape)).shape
        tensors[key] = Tensor(name, layout, shape, array.dtype)
        if twin := _twin(key):
            tensors[twin] = tensors[key]
    return MappingProxyType(tensors)


def to_arrays(config: ModelConfig, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of the model, from a normalised published state dict.

    Raises:
      UserError: tensors are missing, extra, mis-shaped or untied; one message names them all.
    """
    tensors = torch_tensors(config)
    problems = differences(tensors, state) + _untied(state)
    if problems:
        raise UserError("the weights do not fit the model: " + "; ".join(problems))
    # Ascending order puts `layers.0` before its twin, which is equal.
    return {tensor.name: tensor.layout.to_jax(state[key]) for key, tensor in sorted(tensors.items())}


def to_tensors(config: ModelConfig, arrays: Mapping[str, np.ndarray | jax.Array]) -> dict[str, np.ndarray]:
    """The published state dict, in no particular order; tied keys hold the same array object."""
    laid_out = {}
    state = {}
    for key, tensor in torch_tensors(config).items():
        if tensor.name not in laid_out:
            laid_out[tensor.name] = np.ascontiguousarray(
                tensor.layout.to_torch(np.asarray(arrays[tensor.name]))
            )
        state[key] = laid_out[tensor.name]
    return state


def _key(name: str) -> tuple[str, Layout]:
    for modules, key_part, name_part, layout in TABLE:
        module = name.removesuffix("." + name_part)
        if module != name and (not modules or re.fullmatch(modules, module)):
            return f"{module}.{key_part}", layout
    raise KeyError(f"no published key for {name}")


def _twin(key: str) -> str | None:
    match = _TIED.fullmatch(key)
    return f"{match[1]}.2.{match[2]}" if match else None


def _untied(state: Mapping[str, np.ndarray]) -> list[str]:
    problems = []
    for key in sorted(state):
        twin = _twin(key)
        if twin is not None and twin in state and not np.array_equal(state[key], state[twin], equal_nan=True):
            problems.append(f"{key} and {twin} differ, but a residual unit has one activation for both")
    return problems
