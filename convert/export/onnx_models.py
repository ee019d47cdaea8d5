"""Encoder, transformer and decoder as ONNX, through PyTorch's own exporter and the port of the model."""

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from logging import ERROR, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from earvae_jax.borders import explained
from earvae_jax.convert.to_torch import state_dict
from earvae_jax.errors import UserError, require
from earvae_jax.model.vae import EarVAE
from earvae_jax.parameters import named_arrays

if TYPE_CHECKING:
    import onnx
    from torch import nn

EXTRA = "onnx"
OPSET, OPSETS = 18, (18, 19, 20, 21, 22, 23)
LAYOUT = "[batch, channels, time]"  # of audio and latents, as PyTorch and most ONNX models of audio have it
_LARGEST = 2**31 - 2**24  # bytes of weights in one file: protobuf ends at 2 GiB, and the graph needs some
_EXAMPLE = 2, 7  # batch and latents that the exporter traces; 1 would become a constant
_ATTRIBUTES = {"transformer": "transformers"}  # the model's name of a part, where it is another


def check_ready(opset: int) -> None:
    """Refuses an opset that the exporter does not write, and says what to install.

    Raises:
      UserError: naming the extra.
    """
    if opset not in OPSETS:
        raise UserError(f"opset {opset}: choose from {OPSETS[0]} to {OPSETS[-1]}")
    for module in ("torch", "onnx", "onnxscript", "onnxruntime"):
        require(module, extra=EXTRA)


def write(folder: Path, model: EarVAE, opset: int, described: Mapping[str, Any]) -> dict[str, Path]:
    """Writes `encoder.onnx`, `decoder.onnx`, and `transformer.onnx` if the model has one.

    Batch and length are open. Every key of `described` is an entry of the models' metadata, as JSON.

    Raises:
      UserError: a part is too large for one file, or the exporter cannot take an option of the model.
    """
    parts = ["encoder", "decoder"] + ["transformer"] * (model.transformers is not None)
    for part in parts:
        _check_size(part, model)
    wrapped = _wrapped(model)
    files = {}
    for part in parts:
        exported = _exported(part, wrapped[part], model, opset)
        for key, value in {**described, "onnx": {"opset": opset, "layout": LAYOUT}}.items():
            entry = exported.metadata_props.add()
            entry.key, entry.value = key, json.dumps(value, ensure_ascii=False)
        files[part] = folder / f"{part}.onnx"
        files[part].write_bytes(exported.SerializeToString())
    return files


def runner(files: Mapping[str, Path]) -> dict[str, Callable[[np.ndarray], list[np.ndarray]]]:
    """The models in ONNX Runtime on the CPU, as functions of [batch, time, channels]."""
    runtime = require("onnxruntime", extra=EXTRA)

    def function(path: Path) -> Callable[[np.ndarray], list[np.ndarray]]:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()

        def run(values: np.ndarray) -> list[np.ndarray]:
            outputs = session.run(None, {given.name: np.ascontiguousarray(values.swapaxes(1, 2))})
            return [output.swapaxes(1, 2) for output in outputs]

        return run

    return {part: function(path) for part, path in files.items()}


def _check_size(part: str, model: EarVAE) -> None:
    arrays = named_arrays(getattr(model, _ATTRIBUTES.get(part, part)))
    size = sum(array.nbytes for array in arrays.values())
    if size > _LARGEST:
        raise UserError(
            f"the {part} has {size / 1e9:.1f} GB of weights, and an ONNX file holds 2 GB: "
            "use --format stablehlo"
        )


def _wrapped(model: EarVAE) -> dict[str, "nn.Module"]:
    """The parts as modules of PyTorch whose forward is what the file computes, with folded weights."""
    from torch import Tensor, nn

    from earvae_jax.convert.torch_port.model import build, fold_weight_norm

    port = build(model.config, state_dict(model))
    fold_weight_norm(port)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.port = port

        def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
            mean, scale = self.port.encode(audio)
            return mean, self.port.std(scale)

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            assert port.transformers is not None
            self.port = port.transformers

        def forward(self, latents: Tensor) -> Tensor:
            return self.port(latents.transpose(1, 2)).transpose(1, 2)

    parts = {"encoder": Encoder(), "decoder": port.decoder}
    return parts | ({} if model.transformers is None else {"transformer": Transformer()})


def _exported(part: str, module: "nn.Module", model: EarVAE, opset: int) -> "onnx.ModelProto":
    import torch

    config = model.config
    (batch, latents), samples = _EXAMPLE, _EXAMPLE[1] * config.downsampling_ratio
    audio, codes = (config.io_channels, "samples"), (config.latent_dim, "latents")
    names = {
        "encoder": ({"audio": audio}, {"mean": codes, "std": codes}),
        "transformer": ({"latents": codes}, {"transformed": codes}),
        "decoder": ({"latents": codes}, {"audio": audio}),
    }
    given, made = names[part]
    channels, time = next(iter(given.values()))
    values = torch.zeros(batch, channels, samples if time == "samples" else latents)
    dynamic = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    with _quiet():
        try:
            program = torch.onnx.export(
                module.eval(),
                (values,),
                dynamo=True,
                dynamic_shapes=(dynamic,),
                opset_version=opset,
                input_names=list(given),
                output_names=list(made),
                verbose=False,
            )
            assert program is not None  # as it always is with dynamo
            exported = program.model_proto
        # The exporter raises errors of many types for what it cannot take.
        except Exception as error:  # noqa: BLE001
            logging.debug("", exc_info=True)
            raise UserError(
                f"PyTorch cannot write this model's {part} as ONNX, opset {opset}: {explained(error)}"
            ) from None
    _name_axes([*exported.graph.input, *exported.graph.output], {**given, **made})
    del exported.graph.value_info[:]  # with the exporter's own names of the axes
    return exported


def _name_axes(values: list[Any], shapes: Mapping[str, tuple[int, str]]) -> None:
    """Calls the open axes what they are: the exporter has numbers for them."""
    for value in values:
        batch, _, time = value.type.tensor_type.shape.dim
        batch.dim_param, time.dim_param = "batch", shapes[value.name][1]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of packages that are not here and of its own code."""
    log = getLogger("torch.onnx")
    level = log.level
    log.setLevel(ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
