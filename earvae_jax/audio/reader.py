"""Reads audio files: chooses the reader, reads to the end of the stream, and reports what is wrong."""

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
    """Reads one file as float32: the whole file in blocks, or a piece of it.

    libsndfile reads uncompressed files and plain FLAC, FFmpeg everything else; the content decides, not the
    name. A header is a hint: the stream is read to its end. If the length is not the announced one, or parts
    are damaged, the result has all that can be decoded, at its place in time if the file states it. One
    warning then says what is wrong, with the seconds announced, read and lost. More than two channels are
    mixed down to stereo (ITU-R BS.775).

    Args:
      path: a file, a pipe, or `-` for standard input.
      channels: "stereo", or "strict" to refuse more than two channels.
      strict: damage is an error.
      tell: receives each warning, which begins with the file's name; by default the log.

    Attributes:
      sample_rate: in Hz; if it changes, the first one.
      channels: 1 or 2.
      file_channels: channels in the file, which may be more.
      announced: samples that the header announces; 0 if it states no length.

    Raises:
      UserError: on opening or reading, the file cannot be opened, is not audio, holds no samples, or holds
        samples that are not finite.
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
        """All samples in order, in blocks of `size`; the last block may be shorter."""
        _ = self._source.announced  # looks at the file now, before it can change
        if self._matrix is not None:
            logging.info("%s: %s", shown(self.path), mixing_words(self.file_channels))
        while len(block := self._read(size)):
            yield block
        if self._position == 0:
            raise UserError(f"{shown(self.path)}: holds no samples")
        self._report()

    def piece(self, start: int, size: int) -> Float[np.ndarray, "T C"]:
        """`size` samples from sample `start` on, or near it in some compressed files; fewer at the end."""
        with explaining(self.path, f"sample {start} cannot be found"):
            self._source.seek(start)
        self._position = start
        return self._read(size)

    def count(self) -> int:
        """The approximate number of samples, without decoding: as announced, or from a quick look."""
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
        """Like `read` of the source; FFmpeg, which skips damage, reads the rest of a damaged FLAC."""
        source = self._source
        if not isinstance(source, SndFile) or self._kind != "flac":
            return source.read(size)
        try:
            block = source.read(size)
            if len(block) == size or self._position + len(block) >= source.count():
                return block
        except Exception as error:  # noqa: BLE001 - any error: FFmpeg decides what can still be read
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
            list(path.iterdir())  # raises if there is no permission
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
            raise UserError(f"{shown(self.path)}: is a playlist, not audio: pass the files that it names")
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
        except Exception as error:  # noqa: BLE001 - any error: libsndfile may know a format that FFmpeg does not
            problem = error
        # libsndfile's decoder reads no more MPEG audio than FFmpeg, and it prints messages of its own.
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
        if not layout:  # FFmpeg reads it from the same header, libsndfile does not
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
        """Reports what was wrong with a file that was read to its end."""
        damage, rate = self._source.damage, self.sample_rate
        for change in damage.changes:
            if self._strict:
                raise UserError(f"{shown(self.path)}: changes from {change}")
            logging.info("%s: changes from %s; the rest is converted back", shown(self.path), change)
        announced = self.announced / rate if self.announced else None
        fault = damage.describe(self._position / rate, announced)
        if fault and self._strict:
            raise UserError(f"{shown(self.path)}: {fault}")
        if fault:
            self._tell(f"{shown(self.path)}: {fault}")


def mixing_words(channels: int) -> str:
    """The message that so many channels are mixed down."""
    return f"{channels} channels are mixed down to stereo (ITU-R BS.775)"


def read(path: str | Path, **options: Any) -> tuple[Float[np.ndarray, "T C"], int]:
    """Reads a whole file; returns it and its sample rate. Options and errors are those of `AudioReader`."""
    with AudioReader(path, **options) as reader:
        return np.concatenate(list(reader.blocks(1 << 20))), reader.sample_rate


def _sndfile(path: Path, kind: str) -> SndFile | None:
    """libsndfile's reader; None if it cannot read the file or does not know how many samples it holds."""
    try:
        source = SndFile(path, kind)
    except Exception as error:  # noqa: BLE001 - any error: FFmpeg is asked next
        logging.debug("%s: %s", path, reason(error))
        return None
    if source.count() and source.known:
        return source
    source.close()
    return None
