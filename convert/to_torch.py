"""Converts a model of this project to a published PyTorch state dict."""

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from earvae_jax import checkpoints
from earvae_jax.borders import exists
from earvae_jax.convert.keys import to_tensors
from earvae_jax.errors import UserError, require
from earvae_jax.model.vae import EarVAE
from earvae_jax.parameters import named_arrays
from earvae_jax.system.atomic import replacing

if TYPE_CHECKING:
    from torch import Tensor


def state_dict(model: EarVAE) -> "OrderedDict[str, Tensor]":
    """The bare state dict in the published key order; it loads into the published code with `strict=True`."""
    torch = require("torch", extra="torch")
    from earvae_jax.convert.torch_port.model import TorchEarVAE

    tensors = to_tensors(model.config, named_arrays(model))
    with torch.device("meta"):  # only the order of the keys is wanted, nothing is computed
        order = list(TorchEarVAE(model.config).state_dict())
    return OrderedDict((key, torch.from_numpy(tensors[key].copy())) for key in order)


def export(checkpoint: str | Path, output: str | Path, *, overwrite: bool = False) -> None:
    """Writes the state dict of a checkpoint as `torch.save` does; the file gets its name when it is complete.

    Raises:
      UserError: the checkpoint does not exist, or `output` exists already or cannot be written.
    """
    output = Path(output)
    if exists(output) and output.is_dir():
        raise UserError(f"{output}: is a folder; name the file to write, such as {output / 'weights.pyt'}")
    if exists(output) and not overwrite:
        raise UserError(f"{output}: exists already; choose another name or pass --overwrite")
    torch = require("torch", extra="torch")
    state = state_dict(checkpoints.load(checkpoint))
    try:
        with replacing(output) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror or error}") from None
