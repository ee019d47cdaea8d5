"""Writing what the codec decodes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from earvae_jax.audio.writer import writing
from earvae_jax.infer.commands.made_with import comment
from earvae_jax.infer.latents import Latents


def audio_writer(
    path: Path, format: str, maker: str
) -> Callable[[Iterator[Float[np.ndarray, "T C"]], Latents], None]:
    """A `Task.write` that writes blocks to a file with the rate and channels of the encoded audio.

    `maker` goes into the file's metadata and says what made the file.
    """

    def write(blocks: Iterator[Float[np.ndarray, "T C"]], latents: Latents) -> None:
        with writing(
            path,
            sample_rate=latents.sample_rate,
            channels=latents.channels,
            format=format,
            samples=latents.samples,
            comment=comment(maker),
        ) as file:
            for block in blocks:
                file.write(block)

    return write
