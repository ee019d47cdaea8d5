"""A model as a flat dictionary of named arrays, and back, strictly.

A name is the path of the array in the module tree, such as `encoder.layers.1.layers.0.layers.1.gain`.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from earvae_jax.borders import one_line
from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.vae import EarVAE
from earvae_jax.system import machine


def named_arrays(model: nnx.Module) -> dict[str, jax.Array]:
    """Every trained array and constant of the model, by name; a shared array appears once."""
    return {name: variable[...] for name, variable in _variables(model).items()}


def expected_arrays(config: ModelConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Names, shapes and dtypes of the arrays of a model of this config; nothing is computed."""
    return {
        name: jax.ShapeDtypeStruct(variable.shape, variable.dtype)
        for name, variable in _variables(_abstract(config)).items()
    }


def check_fits_in_memory(config: ModelConfig) -> None:
    """Refuses a config whose random weights would fill the memory, so that the system would kill the process.

    Raises:
      UserError: the weights alone are larger than the memory of this machine.
    """
    size = sum(math.prod(array.shape) * array.dtype.itemsize for array in expected_arrays(config).values())
    memory = machine.physical_memory()
    if 0 < memory < size:
        raise UserError(
            f"the config asks for {size / 1e9:.1f} GB of weights; this machine has {memory / 1e9:.1f} GB"
        )


def build(config: ModelConfig, arrays: Mapping[str, jax.Array | np.ndarray]) -> EarVAE:
    """Builds the model that holds exactly these arrays.

    Raises:
      UserError: arrays are missing, extra or mis-shaped; one message names them all.
    """
    model = _abstract(config)
    variables = _variables(model)
    problems = differences(variables, arrays)
    if problems:
        raise UserError("the weights do not fit the model config: " + "; ".join(problems))
    for name, variable in variables.items():
        variable.set_value(jax.numpy.asarray(arrays[name]))
    return model


def differences(expected: Mapping, found: Mapping) -> list[str]:
    """A line for each missing, unexpected, mis-shaped or mistyped array in `found`."""
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    problems = [f"missing {name} {_describe(expected[name])}" for name in sorted(missing)]
    problems += [f"unexpected {one_line(name)} {_describe(found[name])}" for name in sorted(extra)]
    for name in sorted(expected.keys() & found.keys()):
        want, have = _describe(expected[name]), _describe(found[name])
        if want != have:
            problems.append(f"{name} is {have}, not {want}")
    return problems


def fingerprint(arrays: Mapping[str, jax.Array | np.ndarray]) -> str:
    """SHA-256 over names, shapes, dtypes and values: equal for equal models, wherever they are stored."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {_describe(array)}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def non_finite(arrays: Mapping[str, jax.Array | np.ndarray]) -> dict[str, int]:
    """How many NaN or infinite values each array holds, where it holds any."""
    counts = {name: int(np.sum(~np.isfinite(np.asarray(array)))) for name, array in arrays.items()}
    return {name: count for name, count in counts.items() if count}


def _abstract(config: ModelConfig) -> EarVAE:
    return EarVAE(config, rngs=None)


def _variables(model: nnx.Module) -> dict[str, nnx.Variable]:
    return {
        ".".join(map(str, path)): variable
        for path, variable in nnx.iter_graph(model)
        if isinstance(variable, nnx.Variable)
    }


def _describe(array: Any) -> str:
    return f"{np.dtype(array.dtype).name}{list(array.shape)}"
