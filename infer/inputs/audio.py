"""Audio as an input of the codec: arrays of any kind, and paths."""

import dataclasses
import functools
import numbers
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from earvae_jax.arrays import full_scale, host_array, is_floating
from earvae_jax.audio.reader import AudioReader
from earvae_jax.errors import UserError
from earvae_jax.infer.engine.task import Reader
from earvae_jax.system.addresses import address

_BLOCK = 1 << 20  # samples checked at a time, so that an hour of int16 is never held as floats
_LONG_BLOCK = 1 << 22  # samples read at once where nothing is converted: a window that lies within is a view


@dataclasses.dataclass(frozen=True)
class AudioInput:
    """One piece of audio, not opened yet.

    Attributes:
      open: opens a reader of it.
      name: the file's name, "" for an array.
      shown: how an error message about it begins.
      flat: whether it has one dimension, [T].
      array_rate: rate of an array in Hz; None for a file.
    """

    open: Callable[[], AbstractContextManager[Reader]]
    name: str = ""
    shown: str = ""
    flat: bool = False
    array_rate: int | None = None


def audio_input(given: Any, *, channels: int, default_rate: int, sample_rate: Any = None) -> AudioInput:
    """Takes an array or a path.

    Arrays are [T, C], or [T] for mono, and hold:
      floats of any width, full scale 1;
      int8, int16 and int32 PCM, divided by its full scale (2^7, 2^15, 2^31);
      uint8, uint16 and uint32 PCM, whose zero is in the middle: uint8 becomes (x − 128) / 128.

    Args:
      channels: the model's channels.
      default_rate: rate of an array in Hz if `sample_rate` is None; a file states its own.

    Raises:
      UserError: the array has other numbers, another shape, no samples or some that are not finite, or
        `sample_rate` is not a rate. Files, and whether `sample_rate` is theirs, are checked at opening.
    """
    rate = _rate(sample_rate)
    if isinstance(given, (str, os.PathLike)):
        path = local_path(given, "audio")
        return AudioInput(functools.partial(_open, path, rate), path.name, str(path))
    array = _samples(given, channels)
    _check_finite(array)
    flat = array.ndim == 1
    array = array[:, None] if flat else array
    rate = rate or default_rate
    return AudioInput(lambda: _ArrayReader(array, rate), flat=flat, array_rate=rate)


def local_path(given: str | os.PathLike, what: str) -> Path:
    """The path of a local file; raises a `UserError` for an address."""
    remote = address(given)
    if remote is not None:
        raise UserError(f"{remote}: only local files are read as {what}: download it and pass its path")
    return Path(given)


def to_amplitudes(block: np.ndarray) -> Float[np.ndarray, "..."]:
    """Samples as float32 of full scale 1; see `audio_input`."""
    if is_floating(block.dtype):
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is refused
            return np.asarray(block, np.float32)
    scale = full_scale(block.dtype)
    if block.dtype.kind == "u":  # flipping the highest bit makes it signed
        block = (block ^ block.dtype.type(scale)).view(f"i{block.dtype.itemsize}")
    return block.astype(np.float32) / np.float32(scale)


def _samples(given: Any, channels: int) -> np.ndarray:
    array = host_array(given, "audio")
    shape, takes = list(array.shape), sorted({1, channels})
    if array.ndim == 3:
        raise UserError(
            f"audio has shape {shape}; expected [samples, channels]: pass a batch as a list of arrays"
        )
    if array.ndim not in (1, 2):
        raise UserError(f"audio has shape {shape}; expected [samples, channels], or [samples] for mono")
    if array.ndim == 2 and shape[1] not in takes and 0 < shape[0] < shape[1]:
        counts = " or ".join(map(str, takes))
        raise UserError(
            f"audio has shape {shape}; expected [samples, channels] with {counts} channels: if it is "
            "[channels, samples], transpose it: audio.T"
        )
    if not array.size:
        raise UserError("audio holds no samples")
    if not is_floating(array.dtype):
        full_scale(array.dtype)
    return array


def _check_finite(array: np.ndarray) -> None:
    if not is_floating(array.dtype):
        return
    count = 0
    for start in range(0, len(array), _BLOCK):
        finite = np.isfinite(to_amplitudes(array[start : start + _BLOCK]))
        if not finite.all():  # to ask is quicker than to count
            count += finite.size - np.count_nonzero(finite)
    if count:
        raise UserError(f"audio holds {count} NaN or infinite samples")


def _rate(sample_rate: Any) -> int | None:
    if sample_rate is None:
        return None
    is_number = isinstance(sample_rate, numbers.Real) and not isinstance(sample_rate, bool)
    if not is_number or not 1 <= sample_rate < 2**31 or sample_rate != int(sample_rate):
        raise UserError(f"sample_rate={sample_rate!r}: expected a whole number of Hz")
    return int(sample_rate)


def _open(path: Path, sample_rate: int | None) -> AudioReader:
    reader = AudioReader(path)
    if sample_rate not in (None, reader.sample_rate):
        with reader:
            raise UserError(
                f"{path}: has {reader.sample_rate} Hz, not {sample_rate}: leave out sample_rate for a file"
            )
    return reader


class _ArrayReader:
    """An array with the reading interface of `AudioReader`."""

    def __init__(self, audio: np.ndarray, sample_rate: int):
        self.sample_rate, self.channels = sample_rate, audio.shape[1]
        self._audio = audio

    def __enter__(self) -> "_ArrayReader":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def blocks(self, size: int) -> Iterator[Float[np.ndarray, "T C"]]:
        if self._audio.dtype == np.float32:
            size = max(size, _LONG_BLOCK)
        for start in range(0, len(self._audio), size):
            yield to_amplitudes(self._audio[start : start + size])
