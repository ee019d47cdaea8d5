"""Resamples audio, as a stream of blocks or as a whole."""

import math
from fractions import Fraction

import numpy as np
import soxr
from jaxtyping import Float

_QUALITY = "HQ"  # 20 bits: below the noise of any 16-bit source


class Resampler:
    """Resamples a stream block by block; a stream of T samples gives ⌊T·out/in + ½⌋."""

    def __init__(self, from_rate: int, to_rate: int, channels: int):
        self._rates = from_rate, to_rate
        self._taken = self._given = 0
        self._stream = None
        if from_rate != to_rate:
            self._stream = soxr.ResampleStream(
                from_rate, to_rate, channels, dtype="float32", quality=_QUALITY
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
        # soxr rounds a length of n + ½ sometimes up and sometimes down: add a little silence, then cut.
        from_rate, to_rate = self._rates
        block = np.pad(block, ((0, 2 + 2 * from_rate // to_rate), (0, 0)))
        block = self._stream.resample_chunk(block, last=True)
        return block[: resampled_length(self._taken, from_rate, to_rate) - self._given]


def resample(audio: Float[np.ndarray, "T C"], from_rate: int, to_rate: int) -> Float[np.ndarray, "T2 C"]:
    """Resamples a whole array, to the same samples as `Resampler`; T2 = ⌊T·to/from + ½⌋."""
    return Resampler(from_rate, to_rate, audio.shape[1])(audio, last=True)


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """The number of samples after resampling, ⌊T·to/from + ½⌋."""
    return math.floor(Fraction(samples) * to_rate / from_rate + Fraction(1, 2))
