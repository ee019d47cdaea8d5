"""Converts from the rate and channels of a file to those of the model, and back."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float

from earvae_jax.audio.channels import to_channels
from earvae_jax.audio.resampling import Resampler, resampled_length
from earvae_jax.errors import UserError
from earvae_jax.infer.engine.task import Reader
from earvae_jax.infer.latents import Latents

_BLOCK = 1 << 16  # samples read at a time
NOT_FINITE = "its samples take the model out of range: latents or output are not finite"


class AtModelRate:
    """The blocks of a reader [T, C], converted to the model's rate and channels; at least one sample.

    Attributes:
      samples: samples read so far, at the reader's own rate; at the end the length of the audio.

    Raises:
      UserError: the channels are neither one nor as many as the model's.
    """

    def __init__(self, reader: Reader, sample_rate: int, channels: int):
        if reader.channels not in (1, channels):
            raise UserError(f"{reader.channels} channels; the model takes {channels}: mix it down first")
        self._reader, self._sample_rate, self._channels = reader, sample_rate, channels
        self.samples = 0

    def __iter__(self) -> Iterator[Float[np.ndarray, "T C"]]:
        resampler = Resampler(self._reader.sample_rate, self._sample_rate, self._reader.channels)
        given = 0
        for block in self._reader.blocks(_BLOCK):
            self.samples += len(block)
            block = resampler(block)
            given += len(block)
            yield to_channels(block, self._channels)
        block = resampler(np.zeros((0, self._reader.channels), np.float32), last=True)
        yield to_channels(block, self._channels)
        if given + len(block) == 0:  # at the model's rate a few samples can become none
            yield np.zeros((1, self._channels), np.float32)


def at_original_rate(
    blocks: Iterable[Float[np.ndarray, "T C"]], latents: Latents, sample_rate: int
) -> Iterator[Float[np.ndarray, "T2 C2"]]:
    """Decoded audio, converted to the rate, channels and length of the audio that was encoded.

    Args:
      blocks: decoded audio at the model's `sample_rate`.
      latents: state the rate, channels and length.

    Raises:
      UserError: a block is not finite.
    """
    left = resampled_length(latents.samples, latents.sample_rate, sample_rate)
    resampler = Resampler(sample_rate, latents.sample_rate, latents.channels)
    written = 0
    for block in blocks:
        if not np.isfinite(block).all():
            raise UserError(NOT_FINITE)
        block = to_channels(block[:left], latents.channels)
        left -= len(block)
        block = resampler(block)[: latents.samples - written]
        written += len(block)
        yield block
    block = resampler(np.zeros((0, latents.channels), np.float32), last=True)[: latents.samples - written]
    yield block
    # If one rate does not divide the other, the result can be a sample short.
    yield np.zeros((latents.samples - written - len(block), latents.channels), np.float32)
