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

_BLOCK = 1 << 16  # samples read at a time
_INSTEAD = ": drop a shorter piece, or run earvae reconstruct, which has no limit"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the page takes of a visitor."""

    seconds: float = 600.0  # of audio
    megabytes: float = 200.0  # of a file, 2^20 bytes each
    waiting: int = 20  # visitors whose computation waits for its turn

    @property
    def bytes(self) -> int:
        """The largest file."""
        return int(self.megabytes * (1 << 20))


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
            if self.samples > self._most:
                raise UserError(self._too_long(clock(self.samples / self.sample_rate)))
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
                if read > self._most:  # whatever the header says
                    raise UserError(self._too_long(f"longer than {clock(self._limits.seconds)}"))
                self._hear(block)
                yield block

    def beginning(self, size: int) -> Float[np.ndarray, "T C"]:
        """The first `size` samples, or all if there are fewer."""
        read, parts = 0, []
        for block in self.blocks(_BLOCK):
            parts.append(block[: size - read])
            read += len(parts[-1])
            if read == size:
                break
        return np.concatenate(parts)

    @property
    def _most(self) -> float:
        return self._limits.seconds * self.sample_rate

    def _too_long(self, length: str) -> str:
        most = clock(self._limits.seconds)
        return f"{shown(self._path.name)}: {length}; this page takes songs up to {most}{_INSTEAD}"


def described(path: Path, limits: Limits) -> str:
    """Name, length, channels and rate of a song in a line.

    Raises:
      UserError: it is larger or longer than the limits, empty, or not audio.
    """
    size = path.stat().st_size if path.exists() else 0
    if size > limits.bytes:
        raise UserError(
            f"{shown(path.name)}: {size / (1 << 20):.1f} MB; this page takes files up to "
            f"{limits.megabytes:g} MB{_INSTEAD}"
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
