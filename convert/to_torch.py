"""Converts a model of this project to a PyTorch state dict, in the published layout or another project's."""

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earvae_jax import checkpoints
from earvae_jax.borders import exists
from earvae_jax.convert.foreign import exports
from earvae_jax.convert.keys import to_tensors
from earvae_jax.convert.state_dict import Layout
from earvae_jax.errors import UserError, require
from earvae_jax.model.vae import EarVAE
from earvae_jax.parameters import named_arrays
from earvae_jax.system.atomic import replacing

if TYPE_CHECKING:
    from torch import Tensor

# Names in a folder: of the weights, and of their JSON.
_NAMES = {
    "diffusers": ("diffusion_pytorch_model.safetensors", "config.json"),
    "stable-audio-tools": ("model.safetensors", "model_config.json"),
}


def state_dict(model: EarVAE) -> "OrderedDict[str, Tensor]":
    """The bare state dict in the published key order; it loads into the published code with `strict=True`."""
    torch = require("torch", extra="torch")
    from earvae_jax.convert.torch_port.model import TorchEarVAE

    tensors = to_tensors(model.config, named_arrays(model))
    with torch.device("meta"):  # only the order of the keys is wanted, nothing is computed
        order = list(TorchEarVAE(model.config).state_dict())
    return OrderedDict((key, torch.from_numpy(tensors[key].copy())) for key in order)


def export(
    checkpoint: str | Path, output: str | Path, *, layout: Layout = "published", overwrite: bool = False
) -> None:
    """Writes the weights of a checkpoint for PyTorch; the output gets its name when it is complete.

    Args:
      layout: "published" writes a file of `torch.save`. The other layouts write a folder with the weights and
        the JSON that their project's own code loads.

    Raises:
      UserError: the checkpoint does not exist, the layout cannot hold the model, or `output` exists already
        or cannot be written.
    """
    output = Path(output)
    if layout != "published":
        _export_folder(checkpoint, output, layout, overwrite)
        return
    if exists(output) and output.is_dir():
        raise UserError(f"{output}: is a folder; name the file to write, such as {output / 'weights.pyt'}")
    _refuse_existing(output, overwrite)
    torch = require("torch", extra="torch")
    state = state_dict(checkpoints.load(checkpoint))
    try:
        with replacing(output) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror or error}") from None


def in_layout(model: EarVAE, layout: Layout) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors and the JSON of a model in another project's layout; errors name no file."""
    state = to_tensors(model.config, named_arrays(model))
    convert = exports.to_diffusers if layout == "diffusers" else exports.to_stable_audio_tools
    return convert(model.config, state)


def _export_folder(checkpoint: str | Path, output: Path, layout: Layout, overwrite: bool) -> None:
    weights_name, json_name = _NAMES[layout]
    if exists(output) and not output.is_dir():
        raise UserError(f"{output}: is a file; name the folder to write")
    if exists(output) and {path.name for path in output.iterdir()} - set(_NAMES[layout]):
        raise UserError(f"{output}: this folder holds other things; name another")
    _refuse_existing(output, overwrite)
    try:
        tensors, values = in_layout(checkpoints.load(checkpoint), layout)
    except exports.NotHeldError as error:
        raise UserError(f"{checkpoint}: {error}: use --layout published") from None
    except UserError as error:
        raise UserError(f"{checkpoint}: {str(error).removeprefix(f'{checkpoint}: ')}") from None
    try:
        with replacing(output) as temporary:
            temporary.mkdir()
            _write_safetensors(temporary / weights_name, tensors)
            (temporary / json_name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror or error}") from None


def _write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    import safetensors.numpy

    contiguous = {key: np.ascontiguousarray(array) for key, array in tensors.items()}
    path.write_bytes(safetensors.numpy.save(contiguous, metadata={"format": "pt"}))


def _refuse_existing(output: Path, overwrite: bool) -> None:
    if exists(output) and not overwrite:
        raise UserError(f"{output}: exists already; choose another name or pass --overwrite")
