"""Writes audio files, which get their names when they are complete."""

import contextlib
import errno
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from absl import logging
from jaxtyping import Float

from earvae_jax.borders import reason, shown
from earvae_jax.errors import UserError
from earvae_jax.system.atomic import replacing

# Files keep what the model gives: a float WAV does not clip at full scale.
SUBTYPES = {"wav": "FLOAT", "flac": "PCM_24"}
_LONGEST_WAV = 2**32 - 2**16  # bytes of samples


class AudioFile:
    """A file that is being written; see `writing`."""

    def __init__(self, file: soundfile.SoundFile, *, clips: bool):
        self._file, self._clips = file, clips
        self.clipped = 0  # samples above full scale, of all channels
        self.peak = 0.0

    @property
    def format(self) -> str:
        """libsndfile's name of the container."""
        return self._file.format

    def write(self, block: Float[np.ndarray, "T C"]) -> None:
        """Appends samples."""
        if self._clips and len(block):
            sizes = np.abs(block)
            self.clipped += int(np.sum(sizes > 1))
            self.peak = max(self.peak, float(sizes.max()))
        self._file.write(block)


@contextlib.contextmanager
def writing(
    path: str | Path,
    *,
    sample_rate: int,
    channels: int,
    format: str = "wav",
    samples: int = 0,
    comment: str = "",
) -> Iterator[AudioFile]:
    """Opens a file to `write` blocks [T, C] to; it gets its name when it is complete.

    `format` is "wav" (32-bit float; RF64 if the expected length, `samples`, is more than a WAV can hold) or
    "flac" (24 bits; a warning reports samples clipped at full scale). `comment` goes into the file's
    metadata; `read_comment` reads it back.

    Raises:
      UserError: the folder cannot be written, or the disk is full.
    """
    container = "RF64" if format == "wav" and 4 * channels * samples > _LONGEST_WAV else format.upper()
    try:
        with replacing(path) as temporary:
            with soundfile.SoundFile(
                os.fsencode(temporary), "w", sample_rate, channels, SUBTYPES[format], format=container
            ) as file:
                if comment:
                    file.comment = comment
                audio = AudioFile(file, clips=format == "flac")
                yield audio
                file.flush()
                written = file.frames
            _check_end(temporary, written)
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be written: {reason(error)}") from None
    except soundfile.LibsndfileError as error:
        # libsndfile calls a failed write a system error without saying which.
        why = reason(error).replace("System error", "no space left, or the device failed")
        raise UserError(f"{shown(path)}: cannot be written: {why}") from None
    if audio.clipped:
        logging.warning(
            "%s: %d samples above full scale were clipped, the loudest by %.2f dB; a WAV file keeps them",
            shown(path),
            audio.clipped,
            20 * math.log10(audio.peak),
        )


def write(
    path: str | Path, audio: Float[np.ndarray, "T C"], sample_rate: int, *, format: str = "wav"
) -> None:
    """Writes a whole file; see `writing`."""
    with writing(
        path, sample_rate=sample_rate, channels=audio.shape[1], format=format, samples=len(audio)
    ) as file:
        file.write(np.asarray(audio, np.float32))


def read_comment(path: str | Path) -> str:
    """The comment that `writing` put into a file; empty if there is none or the file cannot be read."""
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            return file.comment
    except (soundfile.LibsndfileError, OSError):
        return ""


def _check_end(path: Path, samples: int) -> None:
    """Reads the last sample back: closing a FLAC writes its end, and libsndfile reports no error then."""
    with contextlib.suppress(soundfile.LibsndfileError), soundfile.SoundFile(os.fsencode(path)) as file:
        file.seek(max(0, samples - 1))
        if file.frames == samples and len(file.read(1)) == min(1, samples):
            return
    raise OSError(errno.ENOSPC, "the end is missing: no space left, or the device failed")
