"""Audio files and arrays: finding, reading and writing in blocks, resampling, mono and stereo."""

import contextlib
import errno
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
import soxr
from absl import logging
from jaxtyping import Float

from earvae_jax.atomic import replacing
from earvae_jax.errors import UserError, require
from earvae_jax.file_search import find_files

# What libsndfile reads, and the containers that the `ffmpeg` extra adds.
EXTENSIONS = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .caf .rf64 .w64".split()  # noqa: SIM905
)
FFMPEG_EXTENSIONS = frozenset(".m4a .mp4 .aac .wma .webm .mkv .mov .ac3 .alac".split())  # noqa: SIM905
_RESAMPLING_QUALITY = "HQ"  # 20 bits: below the noise of any 16-bit source
_NO_COUNT = 2**62  # libsndfile says as much or more for a length that it does not know
_LOSSY = (".mp3", ".ogg", ".oga", ".opus")
# Writing keeps what the model gives: a float WAV does not clip at full scale.
_LONGEST_WAV = 2**32 - 2**16  # bytes of samples
SUBTYPES = {"wav": "FLOAT", "flac": "PCM_24"}


def find_audio(inputs: Sequence[str | Path], *, output_dir: Path | None = None) -> list[tuple[Path, Path]]:
    """Audio files of folders and files; see `find_files`."""
    return find_files(inputs, EXTENSIONS | FFMPEG_EXTENSIONS, "audio files", output_dir=output_dir)


class AudioReader:
    """Reads one file as float32, from its beginning to its end in blocks or a piece of it.

    libsndfile's count of frames is an announcement: files cut short and some MP3 hold fewer. What arrives
    is trusted.

    Attributes:
      sample_rate: in Hz.
      channels: of the file.
      announced: samples that the header promises, about so many in a container that ffmpeg reads; 0 where it
        says nothing.

    Raises:
      UserError: no audio, an unknown format, a file damaged where it cannot be read on, no samples at all, or
        samples that are not finite.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file = _open(self.path)
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        frames = self._file.frames
        self.announced: int = frames if frames < _NO_COUNT else 0

    def __enter__(self) -> "AudioReader":
        return self

    def __exit__(self, *exception) -> None:
        self._file.close()

    def blocks(self, size: int) -> Iterator[Float[np.ndarray, "T C"]]:
        """All samples in order, `size` at a time but for the last block."""
        position = 0
        while len(block := self._read(size, position)):
            position += len(block)
            yield block
        if position == 0:
            raise UserError(f"{self.path}: holds no samples")
        self._check_whole(position)

    def piece(self, start: int, size: int) -> Float[np.ndarray, "T C"]:
        """`size` samples from sample `start` on, or near it in some compressed files; fewer at the end."""
        try:
            self._file.seek(start)
        except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
            raise UserError(f"{self.path}: no sample {start} can be found: {_reason(error)}") from None
        return self._read(size, start)

    def _read(self, size: int, position: int) -> Float[np.ndarray, "T C"]:
        try:
            block = self._file.read(size, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
            seconds = position / self.sample_rate
            raise UserError(f"{self.path}: damaged after {seconds:.1f} s: {_reason(error)}") from None
        if not np.all(np.isfinite(block)):
            first = position + int(np.argmax(~np.isfinite(block).all(axis=1)))
            count = int(np.sum(~np.isfinite(block)))
            raise UserError(f"{self.path}: {count} samples are NaN or infinite, the first at sample {first}")
        return block

    def _check_whole(self, samples: int) -> None:
        """Tells about a file that ended early; what there was of it has been read."""
        if not isinstance(self._file, soundfile.SoundFile):
            return  # a duration is no exact count
        promised = self.announced
        header = self._file.extra_info
        if samples < promised and self.path.suffix.lower() not in _LOSSY:
            raise UserError(f"{self.path}: damaged: {samples} of {promised} samples can be read")
        if samples < 0.99 * promised or _cut_short(header):
            logging.warning("%s: cut short; the %d samples that are there are used", self.path, samples)


def read(path: str | Path) -> tuple[Float[np.ndarray, "T C"], int]:
    """A whole file and its sample rate; errors as `AudioReader`."""
    with AudioReader(path) as reader:
        return np.concatenate(list(reader.blocks(1 << 20))), reader.sample_rate


@contextlib.contextmanager
def writing(
    path: str | Path, *, sample_rate: int, channels: int, format: str = "wav", samples: int = 0
) -> Iterator[soundfile.SoundFile]:
    """A file to `write` blocks [T, C] to; it gets its name when it is whole.

    `format` is "wav" (32-bit float; RF64 where `samples`, the expected length, passes what a WAV can hold) or
    "flac" (24 bits, clipped at full scale).

    Raises:
      UserError: the folder cannot be written, or the disk is full.
    """
    container = "RF64" if format == "wav" and 4 * channels * samples > _LONGEST_WAV else format.upper()
    try:
        with replacing(path) as temporary:
            with soundfile.SoundFile(
                temporary, "w", sample_rate, channels, SUBTYPES[format], format=container
            ) as file:
                yield file
                file.flush()
                written = file.frames
            _check_end(temporary, written)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
    except soundfile.LibsndfileError as error:
        # libsndfile calls a failed write a system error without saying which.
        reason = _reason(error).replace("System error", "no space left, or the device failed")
        raise UserError(f"{path}: cannot be written: {reason}") from None


def _check_end(path: Path, samples: int) -> None:
    """Reads the last sample back: a FLAC gets its end as it is closed, and libsndfile tells no error then."""
    with contextlib.suppress(soundfile.LibsndfileError), soundfile.SoundFile(path) as file:
        file.seek(max(0, samples - 1))
        if file.frames == samples and len(file.read(1)) == min(1, samples):
            return
    raise OSError(errno.ENOSPC, "the end is missing: no space left, or the device failed")


def write(
    path: str | Path, audio: Float[np.ndarray, "T C"], sample_rate: int, *, format: str = "wav"
) -> None:
    """Writes a whole file; see `writing`."""
    with writing(
        path, sample_rate=sample_rate, channels=audio.shape[1], format=format, samples=len(audio)
    ) as file:
        file.write(np.asarray(audio, np.float32))


class Resampler:
    """Resamples a stream of blocks; the blocks of one stream together give ⌊T·out/in + ½⌋ samples."""

    def __init__(self, from_rate: int, to_rate: int, channels: int):
        self._rates = from_rate, to_rate
        self._taken = self._given = 0
        self._stream = None
        if from_rate != to_rate:
            self._stream = soxr.ResampleStream(
                from_rate, to_rate, channels, dtype="float32", quality=_RESAMPLING_QUALITY
            )

    def __call__(self, block: Float[np.ndarray, "T C"], *, last: bool = False) -> Float[np.ndarray, "T2 C"]:
        """The samples that are ready after this block."""
        block = np.ascontiguousarray(block, np.float32)
        if self._stream is None:
            return block
        self._taken += len(block)
        if not last:
            block = self._stream.resample_chunk(block)
            self._given += len(block)
            return block
        # soxr rounds a length of n + ½ up or down as its own ratio falls: a little silence more, then a cut.
        from_rate, to_rate = self._rates
        block = np.pad(block, ((0, 2 + 2 * from_rate // to_rate), (0, 0)))
        block = self._stream.resample_chunk(block, last=True)
        return block[: resampled_length(self._taken, from_rate, to_rate) - self._given]


def resample(audio: Float[np.ndarray, "T C"], from_rate: int, to_rate: int) -> Float[np.ndarray, "T2 C"]:
    """A whole array at another rate, the same samples as `Resampler` gives; T2 = ⌊T·to/from + ½⌋."""
    return Resampler(from_rate, to_rate, audio.shape[1])(audio, last=True)


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """⌊T·to/from + ½⌋."""
    return math.floor(Fraction(samples) * to_rate / from_rate + Fraction(1, 2))


def to_channels(audio: Float[np.ndarray, "T C"], channels: int) -> Float[np.ndarray, "T C2"]:
    """Mono to stereo by copying, stereo to mono by the mean.

    Raises:
      UserError: any other pair of counts.
    """
    given = audio.shape[1]
    if given == channels:
        return audio
    if given == 1:
        return np.repeat(audio, channels, axis=1)
    if channels == 1:
        return np.mean(audio, axis=1, keepdims=True)
    raise UserError(f"{given} channels; the model takes {channels}: mix it down first")


def _open(path: Path):
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not an audio file")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: is empty")
        return soundfile.SoundFile(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError) as error:
        if path.suffix.lower() in FFMPEG_EXTENSIONS:
            require("av", extra="ffmpeg")
            from earvae_jax.ffmpeg import FfmpegFile

            return FfmpegFile(path)
        raise UserError(f"{path}: not readable as audio: {_reason(error)}") from None


def _cut_short(header: str) -> bool:
    """libsndfile's log of a WAV whose data chunk is longer than the file."""
    lines = (line for line in header.splitlines() if line.startswith("data"))
    return any("should be" in line for line in lines)


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", None) or str(error)
    return text.strip().rstrip(".").removeprefix("Error : ")
