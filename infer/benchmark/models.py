"""The model that a benchmark takes: a checkpoint's, or one of a config with random weights."""

from importlib import resources
from pathlib import Path

import numpy as np
from flax import nnx

from earvae_jax import checkpoints
from earvae_jax.borders import exists
from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.vae import EarVAE
from earvae_jax.parameters import build, check_fits_in_memory, expected_arrays

DEFAULT_CONFIG = "ear_vae_44k"


def named_model(checkpoint: str | None, config: str | None) -> tuple[str, EarVAE]:
    """A model and its name for the report.

    Args:
      checkpoint: the path of one; None for random weights.
      config: a JSON file, or the name of a bundled one; None is `DEFAULT_CONFIG`.

    Raises:
      UserError: there is no such model, or its weights do not fit in memory.
    """
    if checkpoint:
        return Path(checkpoint).name, checkpoints.load(checkpoint)
    name, values = _config(config)
    return name, EarVAE(values, rngs=nnx.Rngs(0))


def shapes_alone(checkpoint: str | None, config: str | None) -> tuple[str, EarVAE]:
    """The same model with zeros for weights, of which nothing is computed."""
    if checkpoint:
        name, values = Path(checkpoint).name, checkpoints.read_info(checkpoint).config
    else:
        name, values = _config(config)
    arrays = expected_arrays(values)
    return name, build(values, {key: np.zeros(array.shape, array.dtype) for key, array in arrays.items()})


def _config(given: str | None) -> tuple[str, ModelConfig]:
    path = Path(given or DEFAULT_CONFIG)
    if path.name == str(path) and not exists(path):
        bundled = Path(str(resources.files("earvae_jax.configs"))) / f"{path.name.removesuffix('.json')}.json"
        path = bundled if exists(bundled) else path
    if not exists(path):
        raise UserError(f"{path}: no such config file; the bundled ones are {', '.join(_bundled())}")
    config = ModelConfig.from_json(path)
    try:
        check_fits_in_memory(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return path.stem, config


def _bundled() -> list[str]:
    configs = (path.name for path in resources.files("earvae_jax.configs").iterdir())
    return sorted(name for name in configs if name.endswith(".json") and not name.startswith("train_"))
