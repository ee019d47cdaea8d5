"""A task: what a pipeline has to do with one piece of audio."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float

from earvae_jax.infer.latents import Latents

LatentKind = Literal["mean", "sample"]
Half = Literal["encoder", "decoder"]


class Reader(Protocol):
    """The source from which a task reads audio: an `AudioReader` or an array."""

    sample_rate: int
    channels: int

    def blocks(self, size: int) -> Iterator[Float[np.ndarray, "T C"]]: ...


@dataclasses.dataclass(frozen=True)
class Task:
    """One piece of audio: where it comes from and what to make of it.

    Attributes:
      name: stored in the latents; it seeds the noise of sampled ones.
      audio: opens the audio to encode; None if `latents` is given.
      latents: reads latents that exist already; None if `audio` is given.
      keep: receives the latents.
      write: receives the decoded blocks at the original rate, as an iterator, in a thread of its own; they
        are not its to change.
      in_memory: whether neither reading nor writing waits for a disk, and reading resamples nothing: a thread
        gains nothing before there is a second block to write.
      latent: "mean", or "sample" with `seed`.
      watch: called after each window with the half that computed it and the latent up to which that half is
        done; what it raises ends the whole run.
    """

    name: str
    audio: Callable[[], AbstractContextManager[Reader]] | None = None
    latents: Callable[[], Latents] | None = None
    keep: Callable[[Latents], None] | None = None
    write: Callable[[Iterator[Float[np.ndarray, "T C"]], Latents], None] | None = None
    in_memory: bool = False
    latent: LatentKind = "mean"
    seed: int = 0
    watch: Callable[[Half, int], None] | None = None
