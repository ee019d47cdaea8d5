"""How the Oobleck convolutions change the number of time steps.

The formulas hold for Python integers and for traced arrays alike.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # plain arithmetic, which needs no JAX
    from jax import Array

Length = TypeVar("Length", int, "Array")


def resampling_padding(stride: int) -> int:
    """Padding on each side of a strided convolution of width 2·stride: ⌈stride/2⌉."""
    return math.ceil(stride / 2)


def downsampled_length(length: Length, stride: int) -> Length:
    """Steps after one strided convolution: ⌊(T + 2⌈s/2⌉ − 2s)/s⌋ + 1, which is ⌊T/s⌋ for even strides."""
    return (length + 2 * resampling_padding(stride) - 2 * stride) // stride + 1


def upsampled_length(length: Length, stride: int) -> Length:
    """Steps after one transposed convolution: (L−1)s − 2⌈s/2⌉ + 2s, which is L·s for even strides."""
    return (length - 1) * stride - 2 * resampling_padding(stride) + 2 * stride


def latents_of(samples: Length, strides: Sequence[int]) -> Length:
    """The number of latents that the encoder makes of `samples` samples."""
    for stride in strides:
        samples = downsampled_length(samples, stride)
    return samples


def samples_of(latents: Length, strides: Sequence[int], *, nearest: bool = False) -> Length:
    """The number of samples that the decoder makes of `latents` latents; `strides` as in the config.

    Nearest-neighbour upsampling gives L·s for odd strides too.
    """
    for stride in reversed(strides):
        latents = latents * stride if nearest else upsampled_length(latents, stride)
    return latents


def latents_for(samples: int, strides: Sequence[int], *, nearest: bool = False) -> int:
    """The fewest latents that decode to at least `samples` samples."""
    latents = max(1, samples // math.prod(strides))
    while samples_of(latents, strides, nearest=nearest) < samples:
        latents += 1
    return latents
