"""Reading what libsndfile cannot (m4a, aac, video) through PyAV, the `ffmpeg` extra."""

from pathlib import Path

import av
import numpy as np
from jaxtyping import Float

from earvae_jax.errors import UserError


class FfmpegFile:
    """The first audio stream of a file, with the part of `soundfile.SoundFile` that reading needs."""

    def __init__(self, path: Path):
        try:
            self._container = av.open(str(path))
            stream = next(iter(self._container.streams.audio), None)
            if stream is None:
                raise UserError(f"{path}: holds no audio stream")
            self.samplerate: int = stream.rate
            self.channels: int = stream.codec_context.channels
            self.frames = 0  # containers give a duration, not a count
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

    def close(self) -> None:
        """Releases the file."""
        self._container.close()

    def _next(self) -> Float[np.ndarray, "T C"] | None:
        try:
            frame = next(self._frames, None)
            if frame is None:
                return None
            converted = self._resampler.resample(frame)
        except av.FFmpegError as error:
            raise OSError(str(error)) from error
        parts = [part.to_ndarray().reshape(-1, self.channels) for part in converted]
        return np.concatenate(parts) if parts else np.zeros((0, self.channels), np.float32)
