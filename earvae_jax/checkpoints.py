"""Model checkpoints: an Orbax directory or one safetensors file, with the config and the provenance."""

import contextlib
import dataclasses
import importlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.flax
from absl import logging

from earvae_jax import demo, known_models, orbax_folders
from earvae_jax.borders import exists, explaining, parse_json, reason, shown
from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.vae import EarVAE
from earvae_jax.parameters import build, expected_arrays, fingerprint, named_arrays
from earvae_jax.system.addresses import address
from earvae_jax.system.atomic import replacing

FORMAT_VERSION = 1
_OF_A_RUN = "model.safetensors"  # what `train` writes into its --workdir
_KEY = "earvae_jax"  # of our metadata, in both kinds of checkpoint
# PyTorch's files, which `convert` turns into checkpoints; the library finds that application by its name.
_OF_TORCH = (".pyt", ".pt", ".pth", ".ckpt", ".bin", ".safetensors")
_CONVERTER = "earvae_jax.convert.cached"
_FOREIGN = (
    "{path}: not a checkpoint of this project; for PyTorch weights run: earvae convert from-torch {path} DIR"
)


@dataclasses.dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint holds besides the arrays."""

    config: ModelConfig
    fingerprint: str  # SHA-256 of the arrays, see `parameters.fingerprint`
    provenance: dict[str, Any]  # source file, its SHA-256, published name, training run …

    def to_dict(self) -> dict[str, Any]:
        """The values in the form that is written to JSON."""
        return {
            "format_version": FORMAT_VERSION,
            "config": self.config.to_dict(),
            "fingerprint": self.fingerprint,
            "provenance": self.provenance,
        }


def save(
    path: str | Path,
    model: EarVAE,
    *,
    provenance: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    overwrite: bool = False,
) -> CheckpointInfo:
    """Writes the model to an Orbax directory, or to one file if the name ends in .safetensors.

    The checkpoint gets its name when it is complete.

    Args:
      dtype: "float32", or "bfloat16" for a file of half the size with rounded weights. Loading makes them
        float32 again, and the fingerprint is that of the rounded weights.

    Raises:
      UserError: `path` exists and `overwrite` is false, it is a folder that holds other things than a
        checkpoint, it cannot be written, or the arguments are not a path and a model.
    """
    if isinstance(path, EarVAE) and not isinstance(model, EarVAE):
        raise UserError("the path comes first: save(path, model)")
    if not isinstance(model, EarVAE):
        raise UserError(f"save(path, model): the model is a {type(model).__name__}, not an EarVAE")
    path = _local(path)
    if exists(path) and not overwrite:
        raise UserError(f"{path}: exists already; choose another name or pass --overwrite")
    if path.name in ("", "..") or (exists(path) and _holds_other_things(path)):
        raise UserError(
            f"{path}: this folder holds other things, which a checkpoint does not replace; name another"
        )
    if dtype != "float32" and path.suffix != ".safetensors":
        raise ValueError("only a .safetensors file can hold another dtype than float32")
    stored = {name: array.astype(dtype) for name, array in named_arrays(model).items()}
    arrays = {name: array.astype(np.float32) for name, array in stored.items()}
    info = CheckpointInfo(model.config, fingerprint(arrays), dict(provenance or {}))
    try:
        with replacing(path) as temporary:
            if path.suffix == ".safetensors":
                # The library's own writer takes a temporary name, which a killed process leaves behind.
                metadata = {_KEY: json.dumps(info.to_dict())}
                temporary.write_bytes(safetensors.flax.save(stored, metadata=metadata))
            else:
                _write_directory(temporary, arrays, {_KEY: info.to_dict()})
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
    return info


def _holds_other_things(path: Path) -> bool:
    with explaining(path, "cannot be written"):
        return path.is_dir() and any(path.iterdir()) and not (path / orbax_folders.METADATA).exists()


def _write_directory(path: Path, arrays: Mapping[str, jax.Array], metadata: Mapping[str, Any]) -> None:
    from orbax.checkpoint import v1 as ocp

    try:
        ocp.save(path.absolute(), arrays, custom_metadata=metadata)
    except ValueError as error:  # TensorStore reports a full disk so
        raise OSError(reason(error)) from None
    finally:
        # After a failure some of Orbax's threads may still be writing there.
        shutil.rmtree(path.with_name(path.name + ".orbax-checkpoint-tmp"), ignore_errors=True)


def load(path: str | Path | None = None) -> EarVAE:
    """Reads a model; without a path, the small demo model that comes with the package.

    Weights of PyTorch, as `earvae convert from-torch` takes them, are converted once into the user's cache,
    and so is a model that `earvae models` lists, by its name. A file or folder of that name comes first.

    Raises:
      UserError: there is no checkpoint, it is damaged, or its arrays do not fit its config (one message
        lists all differences).
    """
    return load_with_info(path)[0]


def load_with_info(path: str | Path | None = None) -> tuple[EarVAE, CheckpointInfo]:
    """Like `load`, and also returns what the checkpoint holds besides the arrays."""
    path = _existing(path)
    if path.is_dir():
        info = _info(path, orbax_folders.custom_metadata(path).get(_KEY))
        arrays = orbax_folders.arrays(path, expected_arrays(info.config))
    else:
        info = _info(path, _file_metadata(path))
        with explaining(path, "not a readable safetensors file"):
            arrays = safetensors.flax.load_file(str(path))
            # The file may hold the arrays as bfloat16; the model is float32.
            arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    try:
        return build(info.config, arrays), info
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_info(path: str | Path | None = None) -> CheckpointInfo:
    """Reads what a checkpoint holds besides the arrays, without reading the arrays."""
    path = _existing(path)
    if path.is_dir():
        return _info(path, orbax_folders.custom_metadata(path).get(_KEY))
    return _info(path, _file_metadata(path))


def is_checkpoint(path: str | Path) -> bool:
    """Whether a path is a checkpoint of this project, or the folder of a run, and not weights of PyTorch."""
    if address(path) is not None or not exists(path):
        return False
    path = Path(path)
    with explaining(path, "cannot be read"):
        if path.is_file():
            return path.suffix == ".safetensors" and _is_own(path)
        return (path / orbax_folders.METADATA).exists() or (
            (path / _OF_A_RUN).is_file() and _is_own(path / _OF_A_RUN)
        )


def _info(path: Path, values: Mapping[str, Any] | None) -> CheckpointInfo:
    if values is None:
        raise UserError(f"{path}: a checkpoint, but not one of an εar-VAE model")
    with explaining(path, "damaged checkpoint metadata"):
        version = values["format_version"]
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path}: checkpoint format {version!r}; this version reads format {FORMAT_VERSION}"
            )
        kept = values["config"], values["fingerprint"], values["provenance"]
    if not isinstance(kept[1], str) or not isinstance(kept[2], dict):
        raise UserError(f"{path}: damaged checkpoint metadata: the fingerprint or the provenance")
    try:
        return CheckpointInfo(ModelConfig.from_dict(kept[0]), *kept[1:])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def explaining_damage(path: Path, advice: str = "") -> contextlib.AbstractContextManager[None]:
    """Wraps the reading of an Orbax directory: errors about damage become one line that names it."""
    return explaining(path, "damaged checkpoint", advice)


def _existing(path: str | Path | None) -> Path:
    if path is None:
        if not demo.MODEL.exists():
            raise UserError(
                "no checkpoint given, and this installation holds no demo model: pass --checkpoint"
            )
        return demo.MODEL
    if known_models.by_name(path) is not None:
        return _converted(path)
    if isinstance(path, (str, os.PathLike)) and (address(path) or "").startswith("hf://"):
        return _converted(path)
    path = _local(path)
    if not exists(path):
        raise UserError(f"{path}: no such checkpoint{known_models.advice(path)}")
    if is_of_torch(path):
        return _converted(path)
    if (path / _OF_A_RUN).is_file():
        logging.info("%s: the folder of a training run; reading its %s", shown(path), _OF_A_RUN)
        return path / _OF_A_RUN
    if (path / "checkpoints").is_dir():
        raise UserError(
            f"{shown(path)}: the folder of a training run that has not written {_OF_A_RUN} yet; "
            "it does so at the first validation"
        )
    if path.is_dir() and not (path / orbax_folders.METADATA).exists():
        raise UserError(f"{shown(path)}: a folder that holds no checkpoint")
    if not path.is_dir() and (not path.is_file() or path.suffix != ".safetensors"):
        raise UserError(_FOREIGN.format(path=path))
    return path


def _converted(source: str | os.PathLike[str]) -> Path:
    return importlib.import_module(_CONVERTER).checkpoint_of(source)


def is_of_torch(path: Path) -> bool:
    """Whether a path holds weights that are no checkpoint of ours, as far as names and metadata tell."""
    with explaining(path, "cannot be read"):
        if path.is_file():
            return path.suffix in _OF_TORCH and not (path.suffix == ".safetensors" and _is_own(path))
        if not path.is_dir() or (path / orbax_folders.METADATA).exists():
            return False
        run = path / _OF_A_RUN
        if run.is_file():
            return not _is_own(run)
        places = [path, path / "vae"]
        return any(file.suffix in _OF_TORCH for place in places if place.is_dir() for file in place.iterdir())


def _is_own(path: Path) -> bool:
    """Whether a .safetensors file is ours, or damaged, which is for its reader to say."""
    try:
        with safetensors.safe_open(str(path), "numpy") as file:
            return _KEY in (file.metadata() or {})
    except Exception:  # noqa: BLE001 - whatever it is, the reader says it
        with path.open("rb") as file:  # a file of torch.save under this name is none of ours
            return not begins_as_torch_saves(file.read(9))


def begins_as_torch_saves(head: bytes) -> bool:
    """Whether a file's first nine bytes are those of `torch.save`: an archive, or formerly a pickle."""
    is_header = head[8:] == b"{"  # of a .safetensors file, behind its length, which may begin so too
    return head.startswith((b"PK\x03\x04", b"\x80\x02")) and not is_header


def _local(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise UserError(f"{type(path).__name__} is not the path of a checkpoint")
    remote = address(path)
    if remote is None:
        return Path(path)
    raise UserError(f"{remote}: this is no local path: download it and pass its path")


def _file_metadata(path: Path) -> dict[str, Any] | None:
    with (
        explaining(path, "not a readable safetensors file"),
        safetensors.safe_open(str(path), "numpy") as file,
    ):
        text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise UserError(_FOREIGN.format(path=path))
    return parse_json(text, path, "damaged checkpoint metadata")
