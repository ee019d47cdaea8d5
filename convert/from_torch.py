"""Converts PyTorch weights to a model of this project."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from earvae_jax import checkpoints, parameters
from earvae_jax.convert import sources
from earvae_jax.convert.config_from_tensors import (
    NOTHING_STATED,
    Stated,
    from_file,
    from_tensors,
    is_relative,
)
from earvae_jax.convert.foreign import configs
from earvae_jax.convert.keys import to_arrays
from earvae_jax.convert.published import Published, by_sha256
from earvae_jax.convert.state_dict import WeightsFile
from earvae_jax.convert.state_dict import read as read_state_dict
from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class TorchWeights:
    """A weights file with the config it belongs to."""

    config: ModelConfig
    arrays: Mapping[str, np.ndarray]  # by this project's names, in its layout
    file: WeightsFile
    published_name: str | None  # if the file is a published εar-VAE, byte for byte
    source: sources.Source
    config_name: str | None = None  # of the JSON that lay beside the weights
    scale: float | None = None  # of the pretransform in the JSON: the generator's, never applied


def read(
    source: str | Path, *, config: str | Path | None = None, stated: Stated = NOTHING_STATED
) -> TorchWeights:
    """Reads weights strictly: each tensor is used once, each array is filled.

    Args:
      source: a file, a folder that holds one, or `hf://OWNER/REPO`, with or without a path in it.
      config: a config file, in εar-VAE's form or that of another project; by default the config of the
        published file that this is, the JSON that lies beside the weights, or what the tensors tell.
      stated: options that leave no trace in the tensors.

    Raises:
      UserError: one line names the file and everything that is wrong with it.
    """
    found = sources.locate(source)
    file = read_state_dict(found.weights)
    published = by_sha256(file.sha256)
    given, beside = _given(found, config, published)
    try:
        if given is None:
            decided = from_tensors(file.tensors, stated, layout=file.layout)
        else:
            decided = from_file(_with_offset(given, file), file.tensors, stated)
        arrays = to_arrays(decided, file.tensors)
    except UserError as error:
        raise UserError(f"{found.shown}{beside.in_words()}: {error}") from None
    beside.log()
    _warn_of_non_finite(found.shown, file.tensors)
    if given is not None and given.scale not in (None, 1):
        logging.info(
            "%s: the config states a scale of %g between autoencoder and generator, which is not applied: "
            "latents are the autoencoder's own",
            found.shown,
            given.scale,
        )
    published_name = published.name if published else None
    scale = None if given is None else given.scale
    return TorchWeights(decided, arrays, file, published_name, found, beside.name, scale)


def _given(
    found: sources.Source, config: str | Path | None, published: Published | None
) -> tuple[configs.GivenConfig | None, sources.Beside]:
    """The config that is given for the weights, and what lay beside them if that was asked."""
    if config is not None:
        return configs.read(config), sources.Beside()
    if published is not None:
        return configs.GivenConfig(published.config), sources.Beside()
    beside = sources.config_beside(found)
    return beside.given, beside


def _with_offset(given: configs.GivenConfig, file: WeightsFile) -> ModelConfig:
    """The config, with the family's offset where it says nothing and the weights are another project's."""
    if given.says_offset or not is_relative(file.tensors, file.layout):
        return given.config
    return dataclasses.replace(given.config, std_offset=configs.STD_OFFSET)


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
    model = parameters.build(weights.config, weights.arrays)
    return checkpoints.save(output, model, provenance=provenance(weights), overwrite=overwrite)


def provenance(weights: TorchWeights) -> dict[str, Any]:
    """What a checkpoint says about the file that its weights come from."""
    file = weights.file
    said = {
        "source": weights.source.shown if weights.source.is_remote else file.path.name,
        "source_sha256": file.sha256,
        "source_prefix": file.prefix,
        "source_layout": None if file.layout == "published" else file.layout,
        "source_config": weights.config_name,
        "pretransform_scale": weights.scale,
        "published_name": weights.published_name,
    }
    always = ("source", "source_sha256", "source_prefix", "published_name")
    return {key: value for key, value in said.items() if key in always or value is not None}


def _warn_of_non_finite(source: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    counts = parameters.non_finite(tensors)
    if counts:
        named = ", ".join(f"{key} ({count})" for key, count in list(counts.items())[:5])
        more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
        logging.warning(
            "%s: %d weights are NaN or infinite, in %s%s", source, sum(counts.values()), named, more
        )
