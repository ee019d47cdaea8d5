"""Random crops of audio files."""

import hashlib
import math
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from absl import logging

from earvae_jax.audio_files import read, resample, to_channels
from earvae_jax.errors import UserError

from .config import DataConfig
from .recordings import Recording

_TRIES = 4  # places of a file that are listened to before it counts as silent
_MARGIN = 256  # samples read before and after a crop that is resampled: the reach of the resampler's filter
_MOST_REJECTED = 1000  # crops in a row without sound, after which nothing is to be expected any more


class CropReader:
    """Draws crops of a list of files, a file as often as crops fit into it, shuffled anew each epoch.

    Files that cannot be read, are shorter than a crop or have more than two channels are skipped: named once
    in the log, counted in `skipped`.
    """

    def __init__(self, recordings: Sequence[Recording], config: DataConfig, *, sample_rate: int, seed: int):
        self.config, self.sample_rate, self.seed = config, sample_rate, seed
        self.files = [recording.path for recording in recordings]
        self.skipped: dict[Path, str] = {}
        self._lock = threading.Lock()
        self._rejected = 0
        self._epoch: tuple[int, np.ndarray] | None = None
        crops = np.array([self._crops_in(path) for path in self.files])
        if not crops.any():
            reasons = "; ".join(f"{path}: {reason}" for path, reason in list(self.skipped.items())[:3])
            raise UserError(f"none of the {len(self.files)} audio files can be trained on ({reasons})")
        self._items = np.repeat(np.arange(len(self.files)), crops)
        heard = [
            f"{recording.name}\n{count}\n"
            for recording, count in zip(recordings, crops, strict=True)
            if count
        ]
        # Names and lengths decide what is drawn; what was skipped from the beginning does not.
        self.fingerprint = hashlib.sha256("".join(heard).encode()).hexdigest()[:16]

    def draw(self, number: int) -> np.ndarray | None:
        """Crop `number`, float32 `[crop_samples, 2]`; None where its file turned out unreadable or silent."""
        epoch, place = divmod(number, len(self._items))
        path = self.files[self._items[self._order(epoch)[place]]]
        if path in self.skipped:
            return None
        rng = np.random.default_rng((self.seed, 1, number))
        crop = None
        try:
            for _ in range(_TRIES):
                crop = self._read(path, rng)
                if (
                    20 * math.log10(math.sqrt(float(np.mean(np.square(crop)))) + 1e-12)
                    >= self.config.silence_db
                ):
                    break
                crop = None
        except (soundfile.SoundFileError, OSError, UserError) as error:
            self._skip(path, str(error))
        self._count(crop)
        return crop

    def _order(self, epoch: int) -> np.ndarray:
        """The items in the order of an epoch."""
        cached = self._epoch
        if cached is None or cached[0] != epoch:
            cached = epoch, np.random.default_rng((self.seed, 0, epoch)).permutation(len(self._items))
            self._epoch = cached
        return cached[1]

    def _read(self, path: Path, rng: np.random.Generator) -> np.ndarray:
        wanted = self.config.crop_samples
        with soundfile.SoundFile(path) as file:
            rate, frames = file.samplerate, file.frames
            margin = 0 if rate == self.sample_rate else _MARGIN
            length = math.ceil(wanted * rate / self.sample_rate) + 2 * margin
            file.seek(int(rng.integers(max(1, frames - length + 1))))
            audio = file.read(length, dtype="float32", always_2d=True)
        if len(audio) < length:  # short, or its header promises more than it holds: see what is really there
            audio, _ = read(path)
            start = int(rng.integers(max(1, len(audio) - length + 1)))
            audio = audio[start : start + length]
        if not np.isfinite(audio).all():
            raise UserError("it holds NaN or infinite samples")
        if margin:
            audio = resample(audio, rate, self.sample_rate)[round(margin * self.sample_rate / rate) :]
        if len(audio) < wanted:
            raise UserError(f"it ends after {len(audio)} samples of a crop of {wanted}")
        return to_channels(audio[:wanted], 2)

    def _crops_in(self, path: Path) -> int:
        """How many crops fit into a file; 0 if it is skipped."""
        try:
            info = soundfile.info(path)
        except (soundfile.SoundFileError, OSError) as error:
            self._skip(path, str(error))
            return 0
        margin = 0 if info.samplerate == self.sample_rate else 2 * _MARGIN
        crop = math.ceil(self.config.crop_samples * info.samplerate / self.sample_rate) + margin
        if info.channels > 2:
            self._skip(path, f"{info.channels} channels; expected mono or stereo")
        elif info.frames < crop:
            length = info.frames / info.samplerate
            self._skip(path, f"{length:.2f} s are shorter than a crop of {crop / info.samplerate:.2f} s")
        else:
            return int(info.frames // crop)
        return 0

    def _skip(self, path: Path, reason: str) -> None:
        with self._lock:
            if path not in self.skipped:
                self.skipped[path] = reason
                logging.warning("skipped %s: %s", path, reason)

    def _count(self, crop: np.ndarray | None) -> None:
        """Stops when nothing but silence and broken files comes: the data loader would look for ever."""
        with self._lock:
            self._rejected = 0 if crop is not None else self._rejected + 1
            if self._rejected > max(_MOST_REJECTED, 2 * len(self._items)):
                raise UserError(
                    f"no crop of the {len(self.files)} training files is readable and louder than "
                    f"{self.config.silence_db} dB (data.silence_db)"
                )
