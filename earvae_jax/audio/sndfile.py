"""Reads uncompressed files and FLAC through libsndfile."""

import functools
import os
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from earvae_jax.audio import containers
from earvae_jax.audio.damage import Damage

_NO_COUNT = 2**62  # libsndfile states this or more for a length that it does not know
_LOOK_BACK = 1 << 16  # bytes: more than libFLAC reads ahead


class SndFile:
    """A file that libsndfile reads, with the attributes and methods of `FfmpegFile`.

    FLACs that were joined to one file are read one after the other.

    Raises:
      Exception: whatever libsndfile raises, or a joined FLAC has another rate or other channels.
    """

    layout: tuple[str, ...] = ()

    def __init__(self, path: Path, kind: str):
        # Opened by its descriptor, which shows how far libsndfile has read.
        self._number = os.open(path, os.O_RDONLY)
        self._file = soundfile.SoundFile(self._number, closefd=True)
        self._path, self._kind = path, kind
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.damage = Damage()
        self.known = self._file.frames < _NO_COUNT
        self._frames = self._file.frames  # of the parts opened so far
        self._part: _From | None = None  # the same file from a later part on

    @functools.cached_property
    def announced(self) -> int:
        """The samples that the header announces, 0 if it states no length; found out on first use."""
        announced, notes = containers.promise(self._path, self._kind, self.count(), self.sample_rate)
        self.damage.notes += notes
        return announced

    def read(self, frames: int) -> Float[np.ndarray, "T C"]:
        """The next `frames` samples, fewer only at the end of the file."""
        block = self._file.read(frames, dtype="float32", always_2d=True)
        while len(block) < frames and self._kind == "flac" and self._next_part():
            more = self._file.read(frames - len(block), dtype="float32", always_2d=True)
            block = np.concatenate([block, more])
        return block

    def seek(self, sample: int) -> None:
        """Moves to a sample."""
        self._file.seek(sample)

    def count(self) -> int:
        """The samples that the file holds by its header; 0 if unknown."""
        return self._frames if self.known else 0

    def close(self) -> None:
        """Releases the file."""
        self._file.close()
        if self._part is not None:
            self._part.close()

    def _next_part(self) -> bool:
        """Goes on to the next FLAC of a joined file; False if there is none."""
        part = self._part
        read_to = os.lseek(self._number, 0, os.SEEK_CUR) if part is None else part.read_to()
        begun = 0 if part is None else part.start
        place = containers.flac_behind(self._path, max(read_to - _LOOK_BACK, begun + 4))
        if place is None:
            return False
        part = _From(self._path, place)
        file = soundfile.SoundFile(part)
        if (file.samplerate, file.channels) != (self.sample_rate, self.channels):
            raise ValueError("a part has another rate or other channels")
        self.close()
        self._file, self._part = file, part
        self._frames += file.frames
        self.announced = self._frames
        return True


class _From:
    """A file as if it began at byte `start`, with the methods that soundfile needs."""

    def __init__(self, path: Path, start: int):
        self.start = start
        self._file = path.open("rb")
        self._file.seek(start)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset + self.start * (whence == os.SEEK_SET), whence) - self.start

    def tell(self) -> int:
        return self._file.tell() - self.start

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()

    def read_to(self) -> int:
        """The byte of the whole file up to which it was read."""
        return self._file.tell()
