"""Reads a PyTorch or safetensors file into a plain, bare state dict of numpy arrays.

No code in a file is ever run: pickles are always read with `weights_only=True`.
"""

import dataclasses
import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import safetensors
from absl import logging

from earvae_jax.borders import explaining
from earvae_jax.checkpoints import begins_as_torch_saves
from earvae_jax.convert import wrapping
from earvae_jax.convert.foreign import averages, kinds, layouts, torchscript, weight_norm
from earvae_jax.errors import UserError, require

if TYPE_CHECKING:
    from torch import Tensor

_COARSE = ("F8_", "F6_", "F4")  # kinds of numbers in .safetensors that a generator beside may be stored in
# Keys of an autoencoder; a transformer beside it has `decoder.layers.0.self_attn.…` and the like.
_HALVES = re.compile(
    r"(^|\.)(encoder|decoder)\."
    r"(layers\.\d+\.(layers|weight|bias|alpha|beta|param)|block\.\d+\.(res_unit|snake|conv)|(conv|snake)[12]\.)"
)
_NOT_ALLOWED = re.compile(r"GLOBAL (\S+)")


Layout = Literal["published", "diffusers", "stable-audio-tools"]  # whose keys a file has


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """The weights of one file."""

    path: Path
    sha256: str  # of the file
    prefix: str  # removed from the keys, such as "gen_ema.ema_model."; empty for a bare file
    layout: Layout
    tensors: dict[
        str, np.ndarray
    ]  # published key to array in PyTorch's layout; weight norm as gain and direction


def read(path: str | Path) -> WeightsFile:
    """Reads .pyt, .pt, .ckpt (whatever `torch.save` wrote), .safetensors or TorchScript.

    Wrapped state dicts are unwrapped; averaged weights are preferred. diffusers' keys and those of
    stable-audio-tools become the published ones. The newer form of weight
    norm is renamed. If weight norm was folded into one weight, the weight becomes the direction and its norm
    the gain (this gives the weight again to float32 rounding). Floating-point tensors become float32.

    Raises:
      UserError: the file is missing, damaged, would run code, or does not hold the weights of one model.
    """
    path = Path(path)
    with explaining(path, "cannot be read"):
        if not path.is_file():
            what = "a folder, not a weights file" if path.is_dir() else "no such weights file"
            raise UserError(f"{path}: {what}")
        with path.open("rb") as file:
            if (kind := kinds.kind_of_content(file.read(kinds.HEAD))) is not None:
                raise UserError(f"{path}: {kind}")
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    tensors = raw_tensors(path)
    try:
        tensors = layouts.without_wrappers(averages.with_dots(tensors, wrapping.is_average))
        prefix, tensors = _of_one_model(path, tensors)
        layout: Layout = "stable-audio-tools" if "pretransform." in prefix else "published"
        if layouts.is_diffusers(tensors):
            layout, tensors = "diffusers", layouts.from_diffusers(tensors)
        tensors = weight_norm.as_gain_and_direction(layouts.from_stable_audio_tools(tensors))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return WeightsFile(path, digest, prefix, layout, tensors)


def raw_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file under its own keys; those of floating point become float32.

    What it is, its first bytes tell, since people rename files; else the name does.

    Raises:
      UserError: the file is damaged, or would run code.
    """
    with path.open("rb") as file:
        head = file.read(9)
    if begins_as_torch_saves(head):
        return _read_pickle(path)
    if head[5:] == b"\0\0\0{":  # after the length of a header of less than a terabyte
        return _read_safetensors(path)
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _of_one_model(path: Path, tensors: dict[str, np.ndarray]) -> tuple[str, dict[str, np.ndarray]]:
    """The prefix of the autoencoder's keys, and its tensors without it."""

    def under(prefix: str, besides: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
        return {
            key.removeprefix(prefix): array
            for key, array in tensors.items()
            if key.startswith(prefix) and not key.startswith(besides)
        }

    def same(one: str, other: str) -> bool:
        first, second = under(one), under(other)
        halves = ("encoder.", "decoder.")
        keys = [key for key in first.keys() | second.keys() if key.startswith(halves)]
        return all(
            key in first and key in second and np.array_equal(first[key], second[key], equal_nan=True)
            for key in keys
        )

    for prefix in averages.never_begun(tensors):
        rest = {key: array for key, array in tensors.items() if not key.startswith(prefix)}
        if wrapping.holds_a_model(rest):
            logging.info("%s: not taking the average under %r: it is of no step yet", path, prefix)
            tensors = rest
    chosen = wrapping.choose(tensors, same)
    if chosen.left or chosen.halves:
        kind = "averaged weights" if chosen.is_average else "weights"
        taken, *left = (
            repr(prefix) if prefix else "no prefix"
            for prefix in (chosen.prefix, *chosen.left, *chosen.halves)
        )
        logging.info("%s: taking the %s under %s, not those under %s", path, kind, taken, ", ".join(left))
    elif chosen.prefix:
        logging.info("%s: taking the weights under %r", path, chosen.prefix)
    inside = under(chosen.prefix, chosen.nested)
    parts = ("encoder.", "decoder.", "transformers.")
    for prefix in chosen.left if chosen.is_average else ():
        beside = {key: array for key, array in under(prefix).items() if key.startswith(parts)}
        inside = averages.completed(inside, beside)
    # Single numbers beside the parts of the model count steps, as those of an average do.
    return chosen.prefix, {
        key: array for key, array in inside.items() if key.startswith(parts) or array.size != 1
    }


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    # The flax interface knows bfloat16, which the numpy one does not.
    with (
        explaining(path, "not a readable safetensors file"),
        safetensors.safe_open(str(path), "flax") as file,
    ):
        stored = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
        coarse = [key for key, dtype in stored.items() if dtype.startswith(_COARSE)]
        if named := next(filter(_HALVES.search, coarse), None):
            raise UserError(
                f"{path}: {named} is stored in 8 bits or fewer, not read: take a file of 16 or 32"
            )
        tensors = {key: np.asarray(file.get_tensor(key)) for key in stored if key not in coarse}
        metadata = file.metadata() or {}
    if "earvae_jax" in metadata:
        raise UserError(f"{path}: a checkpoint of this project already, not weights of PyTorch")
    # `safetensors.torch.save_model` stores a shared tensor once and notes the other keys.
    for key, kept in metadata.items():
        if key not in tensors and kept in tensors:
            tensors[key] = tensors[kept]
    return {key: _float32(path, key, array) for key, array in tensors.items()}


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        magic = file.read(4)
    archive = magic == b"PK\x03\x04"
    if archive and torchscript.is_torchscript(path):
        return {key: _float32(path, key, array) for key, array in torchscript.read(path).items()}
    torch = require("torch", extra="torch")
    if not archive and magic[:1] != b"\x80":
        raise UserError(f"{path}: neither a file of torch.save nor .safetensors")
    if archive:
        _check_archive(path)
    with explaining(path, "truncated or damaged, or not written by torch.save"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd formats; what goes wrong is reported below
        try:
            with path.open("rb") as file:  # by its path, torch would judge it by its name
                content = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if (named := _NOT_ALLOWED.search(str(error))) is None:
                raise UserError(f"{path}: damaged, or not written by torch.save") from None
            raise UserError(
                f"{path}: refused: the file wants to run code ({named[1]}); at its source, save a plain "
                "state dict: torch.save(model.state_dict(), PATH)"
            ) from None
    tensors = _flat(torch.Tensor, content)
    return {key: _float32(path, key, _as_numpy(torch, path, key, tensor)) for key, tensor in tensors.items()}


def _check_archive(path: Path) -> None:
    """Warns of wrong checksums, and refuses compressed members, which may unpack to any size."""
    with (
        explaining(path, "truncated or damaged, or not written by torch.save"),
        zipfile.ZipFile(path) as archive,
    ):
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise UserError(f"{path}: a compressed archive, which torch.save does not write")
        if not any(info.filename.endswith("data.pkl") for info in archive.infolist()):
            raise UserError(
                f"{path}: a zip archive that torch.save did not write: at its source, save a plain state "
                "dict: torch.save(model.state_dict(), PATH)"
            )
        damaged = archive.testzip()
    if damaged is not None:
        logging.warning("%s: the checksum of %s does not match, the file may be damaged", path, damaged)


def _flat(tensor_type: "type[Tensor]", content: object) -> dict[str, "Tensor"]:
    """The tensors of nested dicts under dotted keys, without whatever else a training checkpoint holds."""
    tensors: dict[str, Tensor] = {}
    waiting: list[tuple[str, Any]] = [("", content)]
    seen = set()
    while waiting:
        prefix, value = waiting.pop()
        if isinstance(value, tensor_type):
            tensors[prefix] = value
        elif isinstance(value, Mapping) and id(value) not in seen:
            seen.add(id(value))  # a dict may hold itself
            inside = [(f"{prefix}.{key}" if prefix else str(key), part) for key, part in value.items()]
            waiting += reversed(inside)
    return tensors


def _as_numpy(torch: ModuleType, path: Path, key: str, tensor: "Tensor") -> np.ndarray:
    """The values of a plain tensor; refuses other kinds, which weights never are."""
    plain = tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
    if not plain or tensor.is_complex():
        kind = "quantized" if tensor.is_quantized else f"{tensor.dtype} {tensor.layout} {tensor.device}"
        raise UserError(f"{path}: {key} is not a plain tensor of real numbers ({kind})")
    with explaining(path, f"{key} cannot be read"):
        tensor = tensor.detach()
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"{path}: {key} has {tensor.numel()} values, but the file holds fewer")
        if tensor.dtype.is_floating_point:
            tensor = tensor.to(torch.float32)
        return tensor.resolve_neg().contiguous().numpy()


def _float32(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    if array.dtype == np.float32 or array.dtype.kind in "iub":
        return array
    if array.dtype.kind == "c":
        raise UserError(f"{path}: {key} is not a plain tensor of real numbers ({array.dtype.name})")
    with np.errstate(over="ignore"):  # infinite values are reported together later
        return array.astype(np.float32)
