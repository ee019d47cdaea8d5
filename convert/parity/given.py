"""What `earvae parity` is given: weights of PyTorch in any layout, or a checkpoint of this project."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from earvae_jax import checkpoints
from earvae_jax.convert import from_torch
from earvae_jax.convert.config_from_tensors import Stated
from earvae_jax.convert.keys import to_tensors
from earvae_jax.convert.state_dict import WeightsFile
from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.vae import EarVAE
from earvae_jax.parameters import build, fingerprint, named_arrays


@dataclasses.dataclass(frozen=True)
class Given:
    """A model, and the same weights for PyTorch."""

    model: EarVAE
    state: Mapping[str, np.ndarray]  # published keys, PyTorch's layout of the axes
    file: WeightsFile | None  # None: a checkpoint of this project
    described: Mapping[str, Any]  # for the report

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.model.config


def read(source: str, *, config: str | None, stated: Stated) -> Given:
    """Reads a source; the arguments are those of `from_torch.read`.

    Raises:
      UserError: it cannot be read, or options are stated of a checkpoint, which holds its config.
    """
    if checkpoints.is_checkpoint(source):
        if config is not None or stated != Stated(rate_needed=False):
            raise UserError(
                f"{source}: a checkpoint, which holds its config: leave out --config and the flags like it"
            )
        model, info = checkpoints.load_with_info(source)
        described = {
            "weights_sha256": None,
            "published_name": info.provenance.get("published_name"),
            "fingerprint": info.fingerprint,
        }
        return Given(model, to_tensors(model.config, named_arrays(model)), None, described)
    weights = from_torch.read(source, config=config, stated=stated)
    described = {
        "weights_sha256": weights.file.sha256,
        "published_name": weights.published_name,
        "fingerprint": fingerprint(weights.arrays),
    }
    return Given(build(weights.config, weights.arrays), weights.file.tensors, weights.file, described)
