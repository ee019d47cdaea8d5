"""Reading what libsndfile cannot (m4a, aac, video) through PyAV, the `ffmpeg` extra."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float

from earvae_jax.errors import UserError

# Seconds decoded before the place that is sought: what a decoder gives first lacks the frames before it.
_RUN_UP = 0.5


class FfmpegFile:
    """The first audio stream of a file, with the part of `soundfile.SoundFile` that reading needs."""

    def __init__(self, path: Path):
        try:
            self._container = av.open(str(path))
            self._stream = stream = next(iter(self._container.streams.audio), None)
            if stream is None:
                raise UserError(f"{path}: holds no audio stream")
            self.samplerate: int = stream.rate
            self.channels: int = stream.codec_context.channels
            # Containers give a duration, not a count.
            seconds = stream.duration and stream.duration * stream.time_base
            seconds = seconds or (self._container.duration or 0) / av.time_base
            self.frames = round(seconds * stream.rate)
            self._frames = self._container.decode(stream)
            self._resampler = av.AudioResampler("flt", stream.codec_context.layout, stream.rate)
            self._waiting = np.zeros((0, self.channels), np.float32)
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"{path}: not readable as audio: {error}") from None

    def read(self, frames: int, *, dtype: str, always_2d: bool) -> Float[np.ndarray, "T C"]:
        """The next `frames` samples, fewer only at the end of the stream."""
        blocks, count = [self._waiting], len(self._waiting)
        while count < frames:
            block = self._next()
            if block is None:
                break
            blocks.append(block)
            count += len(block)
        everything = np.concatenate(blocks)
        self._waiting = everything[frames:]
        return everything[:frames].astype(dtype, copy=False)

    def seek(self, frame: int) -> None:
        """Goes on at a sample, or near it where the container's times are not exact."""
        stream, rate = self._stream, self.samplerate
        start = (stream.start_time or 0) * stream.time_base
        with _os_errors():
            before = start + max(0, frame / rate - _RUN_UP)
            self._container.seek(int(before / stream.time_base), stream=stream)
            self._frames = self._container.decode(stream)
            first = next(self._frames, None)
            self._waiting = self._converted(first)
        if first is not None and first.time is not None:
            self.read(max(0, frame - round((first.time - start) * rate)), dtype="float32", always_2d=True)

    def close(self) -> None:
        """Releases the file."""
        self._container.close()

    def _next(self) -> Float[np.ndarray, "T C"] | None:
        with _os_errors():
            frame = next(self._frames, None)
            return None if frame is None else self._converted(frame)

    def _converted(self, frame: av.AudioFrame | None) -> Float[np.ndarray, "T C"]:
        parts = [] if frame is None else self._resampler.resample(frame)
        arrays = [part.to_ndarray().reshape(-1, self.channels) for part in parts]
        return np.concatenate(arrays) if arrays else np.zeros((0, self.channels), np.float32)


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Errors as soundfile's reader may have them."""
    try:
        yield
    except av.FFmpegError as error:
        raise OSError(str(error)) from error
