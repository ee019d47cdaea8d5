"""Writes an exported model as a folder that gets its name when it is whole and has been checked."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import safetensors.numpy

from earvae_jax import demo
from earvae_jax.borders import exists, shown
from earvae_jax.checkpoints import load_with_info
from earvae_jax.convert.export import onnx_models, stablehlo
from earvae_jax.convert.export.agreement import Agreement, Reference
from earvae_jax.convert.export.metadata import describe
from earvae_jax.errors import UserError
from earvae_jax.model.vae import EarVAE
from earvae_jax.system.atomic import replacing

Format = Literal["stablehlo", "onnx", "both"]
FORMATS = get_args(Format)
METADATA, WEIGHTS = "metadata.json", "weights.safetensors"
# What a folder may hold that an export replaces: nothing else is removed.
_STEMS, _SUFFIXES = ("encoder", "transformer", "decoder"), (".stablehlo", ".onnx")
_json = functools.partial(json.dumps, ensure_ascii=False)
_OWN = {METADATA, WEIGHTS, *(stem + suffix for stem in _STEMS for suffix in _SUFFIXES)}


@dataclasses.dataclass(frozen=True)
class Written:
    """What an export wrote.

    Attributes:
      sizes: bytes of each file, by its name.
      agreements: how far each format is from the model; without StableHLO's where no platform is this one.
    """

    sizes: dict[str, int]
    agreements: dict[str, Agreement]


def export(
    checkpoint: str | Path | None,
    output: str | Path,
    *,
    format: Format = "stablehlo",
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    opset: int = onnx_models.OPSET,
    overwrite: bool = False,
) -> Written:
    """Writes the programs of a model, their weights and `metadata.json` into a new folder.

    Each format is run here and compared with the model before the folder gets its name.

    Args:
      checkpoint: what `earvae_jax.load` takes.
      platforms: those that the StableHLO programs run on, all from one file each.
      opset: of the ONNX models.

    Raises:
      UserError: the output exists, a word is unknown, the model does not say its rate or cannot be exported,
        a package is missing, or what was made does not agree with the model.
    """
    output = Path(output)
    if format not in FORMATS:
        raise UserError(f"format {format!r}: choose from {', '.join(FORMATS)}")
    if format != "onnx":
        stablehlo.check_ready(platforms)
    if format != "stablehlo":
        onnx_models.check_ready(opset)
    _refuse_existing(output, overwrite)
    model, info = load_with_info(checkpoint)
    name = Path(demo.MODEL if checkpoint is None else checkpoint).resolve().name
    if model.config.sample_rate is None:
        raise UserError(
            f"{name}: its config does not say the model's sample rate: convert the weights again with "
            "--sample-rate"
        )
    described, reference = describe(info, name), Reference(model)
    agreements: dict[str, Agreement] = {}
    try:
        with replacing(output) as temporary:
            temporary.mkdir()
            if format != "onnx":
                _write_stablehlo(temporary, model, platforms, described, reference, agreements)
            if format != "stablehlo":
                files = onnx_models.write(temporary, model, opset, described)
                agreements["onnx"] = reference.compared(onnx_models.runner(files))
                described["onnx"] = {"opset": opset, "layout": onnx_models.LAYOUT}
            (temporary / METADATA).write_text(_json(described, indent=2) + "\n", encoding="utf-8")
            sizes = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror or error}") from None
    return Written(sizes, agreements)


def _write_stablehlo(
    folder: Path,
    model: EarVAE,
    platforms: Sequence[str],
    described: dict[str, Any],
    reference: Reference,
    agreements: dict[str, Agreement],
) -> None:
    programs = stablehlo.Programs(model)
    serialized = {name: program.serialize() for name, program in programs.exported(platforms).items()}
    for name, content in serialized.items():
        (folder / f"{name}.stablehlo").write_bytes(content)
    described["stablehlo"] = {"platforms": list(platforms), "layout": stablehlo.LAYOUT}
    metadata = {"earvae_jax_export": _json(described)}
    arrays = {name: np.asarray(array) for name, array in programs.weights.items()}
    (folder / WEIGHTS).write_bytes(safetensors.numpy.save(arrays, metadata=metadata))
    if stablehlo.runs_here(platforms):
        agreements["stablehlo"] = reference.compared(stablehlo.runner(serialized, programs.weights))


def _refuse_existing(output: Path, overwrite: bool) -> None:
    if not exists(output):
        return
    if not output.is_dir():
        raise UserError(f"{shown(output)}: is a file; name the folder to write")
    if {path.name for path in output.iterdir()} - _OWN:
        raise UserError(f"{shown(output)}: this folder holds other things; name another")
    if not overwrite:
        raise UserError(f"{shown(output)}: exists already; choose another name or pass --overwrite")
