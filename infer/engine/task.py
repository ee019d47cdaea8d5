"""What a pipeline is asked to do with one piece of audio."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float

from earvae_jax.infer.latents import Latents

LatentKind = Literal["mean", "sample"]


class Reader(Protocol):
    """What a task reads audio from: `AudioReader`, or an array."""

    sample_rate: int
    channels: int

    def blocks(self, size: int) -> Iterator[Float[np.ndarray, "T C"]]: ...


@dataclasses.dataclass(frozen=True)
class Task:
    """One piece of audio: where it comes from and what is to be made of it.

    Attributes:
      name: goes into the latents, and seeds the noise where they are sampled.
      audio: opens the audio to encode, or
      latents: reads latents that exist already.
      keep: receives the latents.
      write: receives the decoded blocks at the original rate, as an iterator, in a thread of its own.
      latent: "mean", or "sample" with `seed`.
    """

    name: str
    audio: Callable[[], AbstractContextManager[Reader]] | None = None
    latents: Callable[[], Latents] | None = None
    keep: Callable[[Latents], None] | None = None
    write: Callable[[Iterator[Float[np.ndarray, "T C"]], Latents], None] | None = None
    latent: LatentKind = "mean"
    seed: int = 0
