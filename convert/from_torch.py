"""Converts PyTorch weights to a model of this project."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from absl import logging

from earvae_jax import checkpoints, parameters
from earvae_jax.convert.config_from_tensors import NOTHING_STATED, Stated, from_file, from_tensors
from earvae_jax.convert.fetch import local_path
from earvae_jax.convert.keys import to_arrays
from earvae_jax.convert.published import by_sha256
from earvae_jax.convert.state_dict import WeightsFile
from earvae_jax.convert.state_dict import read as read_state_dict
from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig
from earvae_jax.system.addresses import address


@dataclasses.dataclass(frozen=True)
class TorchWeights:
    """A weights file with the config it belongs to."""

    config: ModelConfig
    arrays: Mapping[str, np.ndarray]  # by this project's names, in its layout
    file: WeightsFile
    published_name: str | None  # if the file is a published one, byte for byte


def read(
    source: str | Path, *, config: str | Path | None = None, stated: Stated = NOTHING_STATED
) -> TorchWeights:
    """Reads weights strictly: each tensor is used once, each array is filled.

    Args:
      source: a file, or `hf://OWNER/REPO/PATH`.
      config: a config file in the published form; by default the config of the published file that this
        is, or the config that the tensors determine.
      stated: options that leave no trace in the tensors.

    Raises:
      UserError: one line names the file and everything that is wrong with it.
    """
    file = read_state_dict(local_path(source))
    published = by_sha256(file.sha256)
    given = ModelConfig.from_json(config) if config is not None else published and published.config
    try:
        decided = from_file(given, file.tensors, stated) if given else from_tensors(file.tensors, stated)
        arrays = to_arrays(decided, file.tensors)
    except UserError as error:
        raise UserError(f"{address(source) or source}: {error}") from None
    _warn_of_non_finite(source, file.tensors)
    return TorchWeights(decided, arrays, file, published.name if published else None)


def convert(
    source: str | Path,
    output: str | Path,
    *,
    config: str | Path | None = None,
    stated: Stated = NOTHING_STATED,
    overwrite: bool = False,
) -> checkpoints.CheckpointInfo:
    """Writes a checkpoint with the weights of a PyTorch file; arguments and errors are those of `read`."""
    weights = read(source, config=config, stated=stated)
    provenance = {
        "source": address(source) or weights.file.path.name,
        "source_sha256": weights.file.sha256,
        "source_prefix": weights.file.prefix,
        "published_name": weights.published_name,
    }
    model = parameters.build(weights.config, weights.arrays)
    return checkpoints.save(output, model, provenance=provenance, overwrite=overwrite)


def _warn_of_non_finite(source: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    counts = parameters.non_finite(tensors)
    if counts:
        named = ", ".join(f"{key} ({count})" for key, count in list(counts.items())[:5])
        more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
        logging.warning(
            "%s: %d weights are NaN or infinite, in %s%s", source, sum(counts.values()), named, more
        )
