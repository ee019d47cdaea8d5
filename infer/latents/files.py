"""The latents of one piece of audio, and the `.npz` files that hold them."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Float
from numpy.typing import DTypeLike

from earvae_jax.borders import explaining, reason, shown
from earvae_jax.errors import UserError
from earvae_jax.system.atomic import replacing

FORMAT_VERSION = 1
NUMBER_FORMATS = ("float32", "float16", "bfloat16")
_FIELDS = ("sample_rate", "samples", "channels", "model", "name")
_BEGINNINGS = (b"PK", b"\x93NUMPY")  # of a .npz, and of a single array
_LARGE = 1 << 30  # bytes, about the latents of a day
_MOST = {"sample_rate": 2**31, "samples": 2**53, "channels": 2**10}  # far above any real file


@dataclasses.dataclass(frozen=True)
class Latents:
    """Mean and standard deviation of every latent, and what decoding needs to restore length and rate.

    Attributes:
      mean: [N, D].
      std: [N, D]; None if the file has none: then only the mean can be decoded.
      sample_rate: rate of the encoded audio in Hz.
      samples: length of the encoded audio at its own rate.
      channels: channels of the encoded audio.
      model: fingerprint of the model that encoded it.
      name: name of the source file; it seeds the noise of sampled latents.
      model_name: name of that model's checkpoint, for people to read.
    """

    mean: Float[np.ndarray, "N D"]
    std: Float[np.ndarray, "N D"] | None
    sample_rate: int
    samples: int
    channels: int
    model: str
    name: str = ""
    model_name: str = ""

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """The mean, the deterministic latent."""
        return np.array(self.mean, dtype=dtype, copy=copy)


def number_format(name: str) -> np.dtype:
    """The type of that name; NumPy alone does not know bfloat16."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def narrowed(latents: Latents, dtype: str, name: str) -> dict[str, Float[np.ndarray, "N D"]]:
    """`mean` and, if there is one, `std` in a number format.

    Raises:
      UserError: the format cannot hold a value; the message begins with `name`.
    """
    arrays = {"mean": latents.mean} if latents.std is None else {"mean": latents.mean, "std": latents.std}
    with np.errstate(over="ignore"):
        narrow = {key: array.astype(number_format(dtype)) for key, array in arrays.items()}
    if not all(np.isfinite(array).all() for array in narrow.values()):
        raise UserError(f"{name}: a latent is too large for {dtype}: use --latent-dtype float32")
    return narrow


def description(latents: Latents, dtype: str) -> dict[str, Any]:
    """What is stored beside the arrays: what decoding needs, and the number format."""
    return {
        "sample_rate": latents.sample_rate,
        "samples": latents.samples,
        "channels": latents.channels,
        "model": latents.model,
        "model_name": latents.model_name,
        "name": latents.name,
        "latent_dtype": dtype,
    }


def write_latents(
    path: str | Path, latents: Latents, *, dtype: str = "float32", metadata: dict[str, Any] | None = None
) -> None:
    """Writes `mean` and, if there is one, `std` [N, D], and a JSON string `metadata`.

    The file gets its name once it is complete. NumPy's files have no name for bfloat16: it is stored as plain
    pairs of bytes, dtype V2, and `latent_dtype` in the metadata says what they are.

    Raises:
      UserError: the file cannot be written, or its number format cannot hold a value.
    """
    narrow: dict[str, Any] = narrowed(latents, dtype, shown(path))
    described = {"format_version": FORMAT_VERSION, **description(latents, dtype), **(metadata or {})}
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **narrow, metadata=np.asarray(json.dumps(described)))
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be written: {reason(error)}") from None


def read_latents(path: str | Path) -> Latents:
    """Reads what `write_latents` wrote; `std` may be missing.

    Raises:
      UserError: the file is missing or damaged, or is not a latent file.
    """
    path = Path(path)
    name = shown(path)
    with explaining(path, "not a readable latent file"), _opened(path, name) as file:
        missing = [key for key in ("mean", "metadata") if key not in file]
        if missing:
            raise UserError(f"{name}: not a latent file of this project: {' and '.join(missing)} missing")
        described = json.loads(_text(file["metadata"], name))
        stored = described.get("latent_dtype") if isinstance(described, dict) else None
        mean = _values(file["mean"], stored)
        std = _values(file["std"], stored) if "std" in file else np.zeros_like(mean)
        for key, array in (("mean", mean), ("std", std)):
            if array.dtype.kind != "f" and array.dtype != number_format("bfloat16"):
                raise UserError(f"{name}: {key} holds {array.dtype}, not floating-point numbers")
        with np.errstate(over="ignore"):  # values too large for float32 become infinite and are refused
            mean, std = mean.astype(np.float32), std.astype(np.float32)
        without_std = "std" not in file
    fields = _fields(described, name)
    if mean.ndim != 2 or mean.shape != std.shape or not mean.size:
        raise UserError(f"{name}: mean {mean.shape} and std {std.shape} must be [N, D] arrays of one shape")
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise UserError(f"{name}: holds NaN or infinite latents")
    return Latents(mean, None if without_std else std, **fields)


@dataclasses.dataclass(frozen=True)
class Header:
    """What a latent file says without its arrays; the fields are those of `Latents`.

    Attributes:
      latents, dim: N and D.
      has_std: whether it has a std.
      latent_rate: latents in a second; None if the file does not say it.
    """

    latents: int
    dim: int
    has_std: bool
    latent_rate: float | None
    sample_rate: int
    samples: int
    channels: int
    model: str
    name: str
    model_name: str


def read_header(path: str | Path) -> Header:
    """Reads what a latent file holds, without its arrays.

    Raises:
      UserError: as `read_latents`, as far as it shows without them.
    """
    path = Path(path)
    name = shown(path)
    with explaining(path, "not a readable latent file"), _opened(path, name) as file:
        missing = [key for key in ("mean", "metadata") if key not in file]
        if missing:
            raise UserError(f"{name}: not a latent file of this project: {' and '.join(missing)} missing")
        described = json.loads(_text(file["metadata"], name))
        assert file.zip is not None  # until it is closed
        with file.zip.open("mean.npy") as member:
            version = np.lib.format.read_magic(member)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, _ = read(member)
        has_std = "std" in file
    fields = _fields(described, name)
    if len(shape) != 2 or 0 in shape:
        raise UserError(f"{name}: mean {shape} must be an [N, D] array")
    rates = described.get("model_sample_rate"), described.get("downsampling_ratio")
    known = all(type(rate) is int and rate > 0 for rate in rates)
    return Header(*shape, has_std, rates[0] / rates[1] if known else None, **fields)


def _fields(described: Any, name: str) -> dict[str, Any]:
    """The checked metadata, as `Latents` takes it."""
    if not isinstance(described, dict):
        raise UserError(f"{name}: damaged: its metadata is not a JSON object")
    missing = [key for key in ("format_version", *_FIELDS) if key not in described]
    if missing:
        raise UserError(f"{name}: damaged: its metadata lacks {', '.join(missing)}")
    if described["format_version"] != FORMAT_VERSION:
        raise UserError(
            f"{name}: latent format {described['format_version']}; this version reads format {FORMAT_VERSION}"
        )
    fields = {key: described[key] for key in _FIELDS} | {"model_name": described.get("model_name", "")}
    for key in ("sample_rate", "samples", "channels"):
        if type(fields[key]) is not int or not 0 < fields[key] < _MOST[key]:
            raise UserError(f"{name}: damaged: {key} is {fields[key]!r}, not a whole number above 0")
    if not all(isinstance(fields[key], str) for key in ("model", "name", "model_name")):
        raise UserError(f"{name}: damaged: model, its name and the file's name must be text")
    return fields


def _values(array: np.ndarray, stored: object) -> np.ndarray:
    """An array as it was written: NumPy gives bfloat16 back as two bytes without a meaning."""
    if stored == "bfloat16" and array.dtype == np.dtype("V2"):
        return array.view(number_format("bfloat16"))
    return array


def _opened(path: Path, name: str) -> np.lib.npyio.NpzFile:
    with path.open("rb") as opened:
        if not opened.read(6).startswith(
            _BEGINNINGS
        ):  # NumPy would take it for a pickle, and say how to load one
            raise UserError(f"{name}: not a readable latent file (it is no .npz)")
    file = np.load(path, allow_pickle=False)
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise UserError(f"{name}: not a latent file: it is a single array without std and metadata")
    for member in file.zip.infolist() if file.zip else ():
        if member.file_size > _LARGE and member.file_size > 100 * member.compress_size:
            raise UserError(f"{name}: damaged: {member.filename} would unpack to {member.file_size} bytes")
    return file


def _text(array: np.ndarray, name: str) -> str:
    """The text in an array; NumPy takes any number for a character, Python refuses some of them."""
    is_text = array.dtype.kind == "U" and array.size == 1 and array.dtype.itemsize > 0
    letter = np.dtype(np.uint32).newbyteorder(array.dtype.byteorder)
    if not is_text or np.atleast_1d(array).view(letter).max() > sys.maxunicode:
        raise UserError(f"{name}: damaged: its metadata is not text")
    return str(array[()] if array.ndim == 0 else array.ravel()[0])
