"""Cuts audio, as it streams in, into windows for the encoder, and latents into windows for the decoder."""

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
    """Windows of audio at the model's rate; holds the audio of about `tiling.lookahead` latents at most."""
    ratio, channels = config.downsampling_ratio, config.io_channels
    held = np.zeros((0, channels), np.float32)
    begin = 0  # latent at which `held` starts
    kept = 0
    blocks = iter(blocks)
    ended = False
    samples = 0
    while True:
        start = max(0, kept - tiling.context.left)
        if start > begin:
            held, begin = held[(start - begin) * ratio :], start
        waiting = [held]
        while not ended and sum(map(len, waiting)) < tiling.lookahead * ratio:
            block = next(blocks, None)
            if block is None:
                ended = True
            else:
                samples += len(block)
                waiting.append(block)
        held = np.concatenate(waiting) if len(waiting) > 1 else held
        latents = latent_count(config, samples) if ended else begin + len(held) // ratio
        if ended and kept >= latents:
            return
        window = tiling.next(kept, latents)
        values = np.zeros((window.size * ratio, channels), np.float32)
        part = held[: window.size * ratio]
        values[: len(part)] = part
        yield Cut(window, values, *_extent(window, latents, ended, ratio))
        kept = window.keep_to


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
