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

# The two activations of a residual unit. Where they are one module, the file has it under both keys.
_FIRST = re.compile(r"((encoder|decoder)\.layers\.\d+\.layers\.\d+)\.layers\.0\.(alpha|beta)")
_MOST_NAMED = 3


class Tensor(NamedTuple):
    """What a published state dict holds under one key."""

    name: str  # of the array here
    layout: Layout
    shape: tuple[int, ...]  # in PyTorch
    dtype: np.dtype


@functools.lru_cache(maxsize=8)  # tracing a whole model takes a second
def torch_tensors(config: ModelConfig) -> Mapping[str, Tensor]:
    """Every key of the state dict of a model of this config, both keys of tied parameters included."""
    tied = tied_halves(config)
    tensors = {}
    for name, array in expected_arrays(config).items():
        key, layout = _key(name)
        shape = layout.to_torch(np.broadcast_to(np.float32(0), array.shape)).shape
        tensors[key] = Tensor(name, layout, shape, array.dtype)
        twin = twin_of(key)
        if twin is not None and tied[half_of(key)]:
            tensors[twin] = tensors[key]
    return MappingProxyType(tensors)


def to_arrays(config: ModelConfig, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of the model, from a normalised published state dict.

    Raises:
      UserError: tensors are missing, extra, mis-shaped or untied; one message names them all.
    """
    tensors = torch_tensors(config)
    problems = differences(tensors, state) + _untied(state, tied_halves(config))
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


def tied_halves(config: ModelConfig) -> dict[str, bool]:
    """By half of the model, whether the two activations of a residual unit are one."""
    return {"encoder": config.encoder.tied_activations, "decoder": config.decoder.tied_activations}


def half_of(key: str) -> str:
    """The first word of a key."""
    return key.partition(".")[0]


def twin_of(key: str) -> str | None:
    """The key of the same parameter of a unit's second activation, for a key of its first one."""
    match = _FIRST.fullmatch(key)
    return f"{match[1]}.layers.2.{match[3]}" if match else None


def snakes_of_units(state: Mapping[str, np.ndarray]) -> dict[str, tuple[str, str] | None]:
    """For each residual unit with two snakes, two keys whose tensors differ; None if the snakes are equal."""
    units: dict[str, tuple[str, str] | None] = {}
    for key in sorted(state):
        twin = twin_of(key)
        if twin is not None and twin in state:
            unit = key.rpartition(".layers.")[0]
            equal = np.array_equal(state[key], state[twin], equal_nan=True)
            units[unit] = units.get(unit) or (None if equal else (key, twin))
    return units


def _key(name: str) -> tuple[str, Layout]:
    for modules, key_part, name_part, layout in TABLE:
        module = name.removesuffix("." + name_part)
        if module != name and (not modules or re.fullmatch(modules, module)):
            return f"{module}.{key_part}", layout
    raise KeyError(f"no published key for {name}")


def _untied(state: Mapping[str, np.ndarray], tied: Mapping[str, bool]) -> list[str]:
    """One clause about the residual units with two activations where there should be one for both."""
    units = {unit: keys for unit, keys in snakes_of_units(state).items() if tied[half_of(unit)]}
    different = [keys for keys in units.values() if keys is not None]
    if not different:
        return []
    named = ", ".join(f"{first} and {second} differ" for first, second in different[:_MOST_NAMED])
    more = f" and {len(different) - _MOST_NAMED} more do" if len(different) > _MOST_NAMED else ""
    return [
        f"{named}{more}, but the other {len(units) - len(different)} of {len(units)} residual units have one "
        "activation for both: a model has one everywhere or two everywhere"
    ]
