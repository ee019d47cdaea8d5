"""Cuts audio, as it streams in, into windows for the encoder, and latents into windows for the decoder."""

import collections
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from earvae_jax.infer.engine.tiling import Tiling, Window
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.lengths import latents_for, samples_of


class Cut(NamedTuple):
    """A window, its values, and the part of it that exists in the file.

    Values from `stop` on are zeros. A `stop` beyond the end of the window means that the file goes on.
    """

    window: Window
    values: Float[np.ndarray, "M C"]  # samples of an encoder window, latents of a decoder window
    start: int  # where the file begins in the window, in steps of `values`; negative if before the window
    stop: int  # where the file ends, counted in the same way


def latent_count(config: ModelConfig, samples: int) -> int:
    """Latents of a file of `samples` samples; the last one is filled up with zeros."""
    nearest = config.decoder.use_nearest_upsample
    return latents_for(samples, config.decoder.strides, nearest=nearest)


def sample_count(config: ModelConfig, latents: int) -> int:
    """Samples that the decoder makes of `latents` latents: N·ratio, or fewer where a stride is odd."""
    nearest = config.decoder.use_nearest_upsample
    return samples_of(latents, config.decoder.strides, nearest=nearest)


def cut_audio(
    blocks: Iterable[Float[np.ndarray, "T C"]], config: ModelConfig, tiling: Tiling
) -> Iterator[Cut]:
    """Windows of audio at the model's rate; holds the blocks of about `tiling.lookahead` latents at most."""
    ratio = config.downsampling_ratio
    held = _Held(config.io_channels)
    kept = 0
    blocks = iter(blocks)
    ended = False
    while True:
        start = max(0, kept - tiling.context.left)
        held.forget(start * ratio)
        while not ended and held.end < (start + tiling.lookahead) * ratio:
            block = next(blocks, None)
            if block is None:
                ended = True
            else:
                held.add(block)
        latents = latent_count(config, held.end) if ended else held.end // ratio
        if ended and kept >= latents:
            return
        window = tiling.next(kept, latents)
        values = held.samples(window.start * ratio, window.size * ratio)
        yield Cut(window, values, *_extent(window, latents, ended, ratio))
        kept = window.keep_to


class _Held:
    """The blocks of a stream that are still needed.

    Attributes:
      end: samples that have come.
    """

    def __init__(self, channels: int):
        self.end = 0
        self._channels = channels
        self._blocks: collections.deque[np.ndarray] = collections.deque()
        self._begin = 0  # of the first block that is held

    def add(self, block: Float[np.ndarray, "T C"]) -> None:
        """Takes the next block."""
        if len(block):
            self._blocks.append(block)
            self.end += len(block)

    def forget(self, start: int) -> None:
        """Drops the blocks that lie before a sample."""
        while self._blocks and self._begin + len(self._blocks[0]) <= start:
            self._begin += len(self._blocks.popleft())

    def samples(self, start: int, count: int) -> Float[np.ndarray, "M C"]:
        """So many samples, with zeros from the end on; a view where one block holds them all."""
        begin = self._begin
        if self._blocks and begin <= start and start + count <= begin + len(self._blocks[0]):
            return self._blocks[0][start - begin : start - begin + count]
        values = np.zeros((count, self._channels), np.float32)
        for block in self._blocks:
            part = block[max(0, start - begin) : max(0, start + count - begin)]
            to = max(0, begin - start)
            values[to : to + len(part)] = part
            begin += len(block)
        return values


def cut_latents(latents: Float[np.ndarray, "N D"], tiling: Tiling) -> Iterator[Cut]:
    """Windows of the latents of a whole file."""
    for window in tiling.plan(len(latents)):
        values = np.zeros((window.size, latents.shape[1]), latents.dtype)
        part = latents[window.start : window.start + window.size]
        values[: len(part)] = part
        yield Cut(window, values, *_extent(window, len(latents), True, 1))


def _extent(window: Window, latents: int, ended: bool, ratio: int) -> tuple[int, int]:
    """Start and stop of the file in the window, clipped just outside it to keep the numbers small."""
    rest = min(latents - window.start, window.size + 1) if ended else window.size + 1
    return -min(window.start, 1) * ratio, rest * ratio
