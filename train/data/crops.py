"""Random crops of audio files."""

import dataclasses
import hashlib
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float

from earvae_jax.audio.channels import to_channels
from earvae_jax.audio.reader import AudioReader, mixing_words
from earvae_jax.audio.resampling import resample
from earvae_jax.borders import shown
from earvae_jax.errors import UserError
from earvae_jax.train.config import DataConfig
from earvae_jax.train.data.recordings import Recording

_TRIES = 4  # places of a file to try before a crop is given up
_MARGIN = 256  # samples read before and after a crop that is resampled: the reach of the resampler's filter
_MOST_REJECTED = 1000  # crops in a row without sound, after which the search ends


class Measured(NamedTuple):
    """What is known about a file before it is read: samples, crops that fit into them, channels."""

    samples: int
    crops: int
    channels: int


@dataclasses.dataclass(frozen=True)
class Cropper:
    """Cuts stereo crops out of files; the result depends only on the file and the random numbers."""

    config: DataConfig
    sample_rate: int  # of the crops, Hz

    def measure(self, path: Path) -> Measured:
        """Length, number of crops and channels of a file, without reading its audio.

        Raises:
          UserError: it cannot be read or is shorter than a crop.
        """
        with AudioReader(path) as reader:
            samples, rate, channels = reader.count(), reader.sample_rate, reader.file_channels
        needed = self._needed(rate)
        if samples < needed:
            raise UserError(
                f"{shown(path)}: {samples / rate:.2f} s are shorter than a crop of {needed / rate:.2f} s"
            )
        return Measured(samples, samples // needed, channels)

    def draw(
        self, path: Path, samples: int, rng: np.random.Generator
    ) -> tuple[Float[np.ndarray, "T 2"] | None, UserError | None]:
        """The first loud crop among a few at random places, and the error of a place that cannot be read.

        Headers may promise too much and files may be damaged in parts; such places are skipped as if silent.
        """
        problem = None
        for _ in range(_TRIES):
            try:
                crop = self._read(path, samples, rng)
            except UserError as error:
                problem = error
                continue
            if 10 * math.log10(float(np.mean(np.square(crop))) + 1e-24) >= self.config.silence_db:
                return crop, problem
        return None, problem

    def usable(self, path: Path) -> bool:
        """Whether a crop can be drawn from a file."""
        try:
            samples = self.measure(path).samples
        except UserError:
            return False
        return self.draw(path, samples, np.random.default_rng(0))[0] is not None

    def _needed(self, rate: int) -> int:
        """Samples that a crop needs of a file with this rate."""
        margin = 0 if rate == self.sample_rate else _MARGIN
        return math.ceil(self.config.crop_samples * rate / self.sample_rate) + 2 * margin

    def _read(self, path: Path, samples: int, rng: np.random.Generator) -> Float[np.ndarray, "T 2"]:
        wanted = self.config.crop_samples
        with AudioReader(path) as reader:
            rate = reader.sample_rate
            needed = self._needed(rate)
            start = int(rng.integers(max(1, samples - needed + 1)))
            audio = reader.piece(start, needed)
            if 0 < len(audio) < needed:  # some compressed files seek only near a place
                missing = needed - len(audio)
                audio = reader.piece(max(0, start - 2 * missing), needed + missing)[:needed]
        if len(audio) < needed:
            raise UserError(f"{shown(path)}: ends at sample {start + len(audio)} of {samples}")
        if rate != self.sample_rate:
            audio = resample(audio, rate, self.sample_rate)[round(_MARGIN * self.sample_rate / rate) :]
        return to_channels(audio[:wanted], 2)


class CropReader:
    """Draws crops of recordings: in each epoch, newly shuffled, as many of each as fit into it.

    Attributes:
      skipped: files that cannot be read, in part or at all, or are shorter than a crop, with the reason; the
        log names each once, when it is found.
      fingerprint: of the names and lengths of the recordings, which together with the seed decide what is
        drawn; files skipped at the beginning do not count.
    """

    def __init__(self, recordings: Sequence[Recording], config: DataConfig, *, sample_rate: int, seed: int):
        self.config, self.seed = config, seed
        self.skipped: dict[Path, str] = {}
        self._cropper = Cropper(config, sample_rate)
        self._lock = threading.Lock()
        self._rejected = 0
        self._epoch: tuple[int, np.ndarray] | None = None
        self._files: list[tuple[Path, int]] = []  # with the samples of each
        counts, digest = [], hashlib.sha256()
        for recording in recordings:
            try:
                samples, count, channels = self._cropper.measure(recording.path)
            except UserError as error:
                self._skip(recording.path, error, "skipped")
                continue
            if channels > 2:
                logging.info("%s: %s", shown(recording.path), mixing_words(channels))
            self._files.append((recording.path, samples))
            counts.append(count)
            digest.update(f"{recording.name}\n{samples}\n".encode(errors="surrogateescape"))
        if not counts:
            reasons = "; ".join(f"{path}: {reason}" for path, reason in list(self.skipped.items())[:3])
            raise UserError(f"none of the {len(recordings)} audio files is usable ({reasons})")
        self._items = np.repeat(np.arange(len(counts)), counts)
        self.fingerprint = digest.hexdigest()[:16]

    def draw(self, number: int) -> Float[np.ndarray, "T 2"] | None:
        """Crop `number`, float32 `[crop_samples, 2]`; None if no sound was found.

        One number always gives the same crop, whatever became of the others.
        """
        epoch, place = divmod(number, len(self._items))
        path, samples = self._files[self._items[self._order(epoch)[place]]]
        crop, problem = self._cropper.draw(path, samples, np.random.default_rng((self.seed, 1, number)))
        if problem is not None:
            self._skip(path, problem, "skipped a part of")
        self._count(crop)
        return crop

    def _order(self, epoch: int) -> np.ndarray:
        """The items in the order of an epoch."""
        cached = self._epoch
        if cached is None or cached[0] != epoch:
            cached = epoch, np.random.default_rng((self.seed, 0, epoch)).permutation(len(self._items))
            self._epoch = cached
        return cached[1]

    def _skip(self, path: Path, error: UserError, what: str) -> None:
        with self._lock:
            if path not in self.skipped:
                self.skipped[path] = reason = str(error).removeprefix(f"{shown(path)}: ")
                logging.warning("%s %s: %s", what, shown(path), reason)

    def _count(self, crop: np.ndarray | None) -> None:
        """Raises an error after too much silence and too many broken files in a row, to end the search."""
        with self._lock:
            self._rejected = 0 if crop is not None else self._rejected + 1
            if self._rejected > max(_MOST_REJECTED, 2 * len(self._items)):
                raise UserError(
                    f"no crop of the {len(self._files)} audio files, such as {self._files[0][0]}, is "
                    f"readable and louder than {self.config.silence_db} dB (data.silence_db)"
                )
