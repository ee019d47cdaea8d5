"""How long and how large a song may be, and a reader that holds to it."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from earvae_jax.audio.reader import AudioReader
from earvae_jax.borders import shown
from earvae_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the page takes of a visitor."""

    seconds: float = 600.0  # of audio
    megabytes: float = 200.0  # of a file, 10^6 bytes each
    waiting: int = 20  # visitors whose computation waits for its turn


class LimitedReader:
    """Reads a file as `AudioReader` does, shows each block to `hear`, and refuses what is beyond the limit.

    Raises:
      UserError: the file is longer than the limit, whatever its header says, or cannot be read. The message
        begins with the file's name without the folder, which says nothing to a visitor.
    """

    def __init__(self, path: Path, limits: Limits, hear: Callable[[np.ndarray], None] = lambda block: None):
        self._path, self._limits, self._hear = path, limits, hear
        with _named(path):
            self._reader = AudioReader(path, tell=lambda warning: None)  # the report's notes repeat it
        self.sample_rate, self.channels = self._reader.sample_rate, self._reader.channels
        try:
            with _named(path):
                self.samples = self._reader.count()  # approximate
            self._check(self.samples)
        except BaseException:
            self._reader.close()
            raise

    def __enter__(self) -> "LimitedReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self._reader.close()

    def blocks(self, size: int) -> Iterator[Float[np.ndarray, "T C"]]:
        """All samples in order, in blocks of `size`; the last block may be shorter."""
        read = 0
        with _named(self._path):
            for block in self._reader.blocks(size):
                read += len(block)
                self._check(read)
                self._hear(block)
                yield block

    def piece(self, size: int) -> Float[np.ndarray, "T C"]:
        """The first `size` samples, or all if there are fewer.

        Raises:
          UserError: the file holds no samples.
        """
        with _named(self._path):
            block = self._reader.piece(0, size)
        if not len(block):
            raise UserError(f"{shown(self._path.name)}: holds no samples")
        return block

    def _check(self, samples: int) -> None:
        if samples > self._limits.seconds * self.sample_rate:
            length, most = (clock(seconds) for seconds in (samples / self.sample_rate, self._limits.seconds))
            raise UserError(
                f"{shown(self._path.name)}: {length} or longer; this page takes up to {most}: "
                "drop a shorter piece, or run earvae reconstruct, which has no limit"
            )


def described(path: Path, limits: Limits) -> str:
    """Name, length, channels and rate of a song in a line.

    Raises:
      UserError: it is larger or longer than the limits, empty, or not audio.
    """
    size = path.stat().st_size if path.exists() else 0
    if size > limits.megabytes * 1e6:
        raise UserError(
            f"{shown(path.name)}: {size / 1e6:.0f} MB; this page takes files up to {limits.megabytes:g} MB: "
            "drop a shorter piece, or run earvae reconstruct, which has no limit"
        )
    with LimitedReader(path, limits) as reader:
        channels = "stereo" if reader.channels == 2 else "mono"
        length = clock(reader.samples / reader.sample_rate)
        return f"{shown(path.name)}: {length}, {channels}, {reader.sample_rate} Hz"


def clock(seconds: float) -> str:
    """A length as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Leaves the folder out of messages about a file."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(shown(path), shown(path.name))) from None
