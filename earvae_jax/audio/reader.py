"""Reading audio files: the right reader for each, to the end of the stream, and what is wrong with it."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from absl import logging
from jaxtyping import Float

from earvae_jax.audio import containers, standard_input
from earvae_jax.audio.channels import stereo_matrix
from earvae_jax.audio.ffmpeg import FfmpegFile
from earvae_jax.audio.ffmpeg_container import opening_fault
from earvae_jax.audio.sndfile import SndFile
from earvae_jax.borders import explaining, reason, shown
from earvae_jax.errors import UserError

Channels = Literal["stereo", "strict"]


class AudioReader:
    """Reads one file as float32, from its beginning to its end in blocks or a piece of it.

    libsndfile reads what is not compressed and plain FLAC, FFmpeg everything else, by content and not by
    name. What a header says is a hint: the stream is read to its end. Where that is not what was announced,
    or parts are damaged, the result has all that can be decoded, at its place in time where the file says
    it, and one warning tells what is wrong, with the seconds announced, read and lost. More than two channels
    are mixed down to stereo (ITU-R BS.775).

    Args:
      path: a file, a pipe, or `-` for standard input.
      channels: "stereo", or "strict" to refuse more than two channels.
      strict: damage is an error.
      tell: gets the warnings, the file's name in front; by default the log.

    Attributes:
      sample_rate: in Hz; that of the beginning, where it changes.
      channels: 1 or 2.
      file_channels: those of the file, which may be more.
      announced: samples that the header promises; 0 where it says nothing.

    Raises:
      UserError: whatever is wrong with a file, while it is opened or read: it cannot be opened, is no audio,
        holds no samples, or samples that are not finite.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        channels: Channels = "stereo",
        strict: bool = False,
        tell: Callable[[str], None] = logging.warning,
    ):
        self.path = Path(path)
        self._strict, self._tell = strict, tell
        self._spool: IO[bytes] | None = None
        self._position = 0
        with explaining(self.path, "not readable as audio"):
            self._source = self._open()
        self.sample_rate: int = self._source.sample_rate
        self._matrix = None
        self.file_channels = count = self._source.channels
        if count > 2:
            try:
                self._matrix = self._mixing(count, channels)
            except UserError:
                self.close()
                raise
        self.channels: int = min(count, 2)

    @property
    def announced(self) -> int:
        return self._source.announced

    def __enter__(self) -> "AudioReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file."""
        with contextlib.suppress(Exception):  # nothing is written here that could be lost
            self._source.close()
        if self._spool is not None:
            self._spool.close()

    def blocks(self, size: int) -> Iterator[Float[np.ndarray, "T C"]]:
        """All samples in order, `size` at a time but for the last block."""
        _ = self._source.announced  # of the file as it is now, before it changes
        if self._matrix is not None:
            logging.info("%s: %s", shown(self.path), mixing_words(self.file_channels))
        while len(block := self._read(size)):
            yield block
        if self._position == 0:
            raise UserError(f"{shown(self.path)}: holds no samples")
        self._report()

    def piece(self, start: int, size: int) -> Float[np.ndarray, "T C"]:
        """`size` samples from sample `start` on, or near it in some compressed files; fewer at the end."""
        with explaining(self.path, f"no sample {start} can be found"):
            self._source.seek(start)
        self._position = start
        return self._read(size)

    def count(self) -> int:
        """About how many samples there are, without decoding them: as announced, or by a quick look."""
        with explaining(self.path, "its length cannot be found"):
            return self._source.count()

    def _read(self, size: int) -> Float[np.ndarray, "T C"]:
        with explaining(self.path, f"damaged after {self._position / self.sample_rate:.1f} s"):
            block = self._read_on(size)
        if not np.isfinite(block).all():
            bad = ~np.isfinite(block)
            first = self._position + int(np.argmax(bad.any(axis=1)))
            count = int(bad.sum())
            raise UserError(
                f"{shown(self.path)}: {count} samples are NaN or infinite, the first at sample {first}"
            )
        self._position += len(block)
        return block if self._matrix is None else block @ self._matrix

    def _read_on(self, size: int) -> Float[np.ndarray, "T C"]:
        """As `read` of the source; a damaged FLAC goes on through FFmpeg, which passes over damage."""
        source = self._source
        if not isinstance(source, SndFile) or self._kind != "flac":
            return source.read(size)
        try:
            block = source.read(size)
            if len(block) == size or self._position + len(block) >= source.count():
                return block
        except Exception as error:  # noqa: BLE001 - of any kind: FFmpeg decides what can still be read
            logging.debug("%s: %s", self.path, reason(error))
        self._go_on_with_ffmpeg()
        return self._source.read(size)

    def _go_on_with_ffmpeg(self) -> None:
        if isinstance(self._source, SndFile):
            self._source.close()
            self._source = FfmpegFile(self._file)
            self._source.read(self._position)

    def _open(self) -> SndFile | FfmpegFile:
        path = self.path
        if not standard_input.is_standard_input(path) and path.is_dir():
            list(path.iterdir())  # no permission
            raise UserError(f"{shown(path)}: is a folder, not an audio file")
        if standard_input.is_once_only(path):
            self._spool = standard_input.spooled(path)
            path = Path(self._spool.name)
        self._file = path
        try:
            return self._open_file(path)
        except BaseException:
            if self._spool is not None:
                self._spool.close()
            raise

    def _open_file(self, path: Path) -> SndFile | FfmpegFile:
        head = containers.head(path)
        if not head:
            raise UserError(f"{shown(self.path)}: is empty")
        if containers.is_playlist(head):
            raise UserError(f"{shown(self.path)}: is a playlist, not audio: give the files that it names")
        self._kind = kind = containers.kind(head)
        if kind and (source := _sndfile(path, kind)) is not None:
            return source
        try:
            ffmpeg = FfmpegFile(path)
            if kind not in ("", "flac"):
                ffmpeg.announced, notes = containers.promise(path, kind, ffmpeg.count(), ffmpeg.sample_rate)
                ffmpeg.damage.notes += notes
            return ffmpeg
        except UserError as error:
            problem: Exception = UserError(str(error).replace(shown(path), shown(self.path)))
        except Exception as error:  # noqa: BLE001 - of any kind: libsndfile may know a format that FFmpeg does not
            problem = error
        # Of MPEG audio libsndfile's decoder knows no more, and prints what it thinks of it.
        if not (kind or containers.is_mpeg(head)) and (source := _sndfile(path, kind)) is not None:
            return source
        if isinstance(problem, UserError):
            raise problem
        why = opening_fault(path) or reason(problem)
        raise UserError(f"{shown(self.path)}: not readable as audio: {why}")

    def _mixing(self, count: int, channels: Channels) -> Float[np.ndarray, "C 2"]:
        if channels == "strict":
            raise UserError(f"{shown(self.path)}: {count} channels; the model takes 2: mix it down first")
        layout = self._source.layout
        if not layout:  # libsndfile does not tell what FFmpeg reads in the same header
            with contextlib.suppress(Exception):
                probe = FfmpegFile(self._file)
                layout = probe.layout
                probe.close()
        matrix = stereo_matrix(count, layout)
        if matrix is None:
            raise UserError(
                f"{shown(self.path)}: {count} channels without known loudspeakers: mix it down first"
            )
        return matrix

    def _report(self) -> None:
        """Tells what was wrong with a file that was read to its end."""
        damage, rate = self._source.damage, self.sample_rate
        for change in damage.changes:
            if self._strict:
                raise UserError(f"{shown(self.path)}: changes from {change}")
            logging.info("%s: changes from %s; all is read as it began", shown(self.path), change)
        announced = self.announced / rate if self.announced else None
        fault = damage.describe(self._position / rate, announced)
        if fault and self._strict:
            raise UserError(f"{shown(self.path)}: {fault}")
        if fault:
            self._tell(f"{shown(self.path)}: {fault}")


def mixing_words(channels: int) -> str:
    """What happens to so many channels."""
    return f"{channels} channels are mixed down to stereo (ITU-R BS.775)"


def read(path: str | Path, **options: Any) -> tuple[Float[np.ndarray, "T C"], int]:
    """A whole file and its sample rate; options and errors as `AudioReader`."""
    with AudioReader(path, **options) as reader:
        return np.concatenate(list(reader.blocks(1 << 20))), reader.sample_rate


def _sndfile(path: Path, kind: str) -> SndFile | None:
    """libsndfile's reader, where it knows the file and how many samples there are."""
    try:
        source = SndFile(path, kind)
    except Exception as error:  # noqa: BLE001 - of any kind: FFmpeg is asked next
        logging.debug("%s: %s", path, reason(error))
        return None
    if source.count() and source.known:
        return source
    source.close()
    return None
