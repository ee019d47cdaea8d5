"""Reading uncompressed files and FLAC through libsndfile."""

import os
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from earvae_jax.audio import containers
from earvae_jax.audio.damage import Damage

_NO_COUNT = 2**62  # libsndfile says as much or more for a length that it does not know


class SndFile:
    """A file that libsndfile reads, with the attributes and methods of `FfmpegFile`."""

    layout: tuple[str, ...] = ()

    def __init__(self, path: Path, kind: str):
        self._file = soundfile.SoundFile(os.fsencode(path))
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.damage = Damage()
        frames = self._file.frames
        self.known = frames < _NO_COUNT
        self.announced, notes = containers.promise(path, kind, frames if self.known else 0, self.sample_rate)
        self.damage.notes += notes

    def read(self, frames: int) -> Float[np.ndarray, "T C"]:
        """The next `frames` samples, fewer only at the end of the file."""
        return self._file.read(frames, dtype="float32", always_2d=True)

    def seek(self, sample: int) -> None:
        """Goes on at a sample."""
        self._file.seek(sample)

    def count(self) -> int:
        """Samples that the file holds by its header."""
        return self._file.frames if self.known else 0

    def close(self) -> None:
        """Releases the file."""
        self._file.close()
