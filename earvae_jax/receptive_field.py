"""How far the convolutions of encoder and decoder see, computed from the config.

The transformer is left out: it sees every latent of a file and is not run in windows.
"""

from typing import NamedTuple

from earvae_jax.model.config import DecoderConfig, EncoderConfig, ModelConfig
from earvae_jax.model.lengths import resampling_padding
from earvae_jax.model.oobleck import DILATIONS, RESIDUAL_WIDTH

_UNITS = sum(DILATIONS) * (RESIDUAL_WIDTH - 1) // 2  # steps that a block's residual units see on each side
_OUTER = 3  # reach of the first convolutions and the decoder's last, of width 7
_ENCODER_LAST = 1  # reach of the encoder's last convolution, of width 3
_ANTIALIAS = 5  # reach of resampling up and down, each with twelve taps at twice the rate


class Reach(NamedTuple):
    """Steps that an output sees to its left and right, not counting its own position."""

    left: int
    right: int


def encoder_reach(config: EncoderConfig) -> Reach:
    """Latent n sees the samples n·ratio − left … n·ratio + right."""
    first = last = 0
    first, last = first - _ENCODER_LAST, last + _ENCODER_LAST
    if config.antialias_activation:
        first, last = first - _ANTIALIAS, last + _ANTIALIAS
    for stride in reversed(config.strides):
        padding = resampling_padding(stride)
        first, last = first * stride - padding, last * stride - padding + 2 * stride - 1
        first, last = first - _UNITS, last + _UNITS
    return Reach(_OUTER - first, last + _OUTER)


def decoder_reach(config: DecoderConfig) -> Reach:
    """The samples n·ratio … (n + 1)·ratio − 1 see the latents n − left … n + right."""
    ratio = 1
    for stride in config.strides:
        ratio *= stride
    first, last = -_OUTER, ratio - 1 + _OUTER
    if config.antialias_activation:
        first, last = first - _ANTIALIAS, last + _ANTIALIAS
    for stride in config.strides:
        first, last = first - _UNITS, last + _UNITS
        if config.use_nearest_upsample:
            left = (2 * stride - 1) // 2
            first, last = (first - left) // stride, (last + 2 * stride - 1 - left) // stride
        else:
            # Input i reaches the outputs i·stride − padding … i·stride − padding + 2·stride − 1.
            padding = resampling_padding(stride)
            first, last = -((2 * stride - 1 - padding - first) // stride), (last + padding) // stride
        if config.antialias_activation:
            first, last = first - _ANTIALIAS, last + _ANTIALIAS
    return Reach(_OUTER - first, last + _OUTER)


def encoder_context(config: ModelConfig) -> Reach:
    """Latents that an encoder window needs besides those it keeps."""
    left, right = encoder_reach(config.encoder)
    ratio = config.downsampling_ratio
    return Reach(-(-left // ratio), -(-(right - (ratio - 1)) // ratio))


def decoder_context(config: ModelConfig) -> Reach:
    """Latents that a decoder window needs besides those it keeps."""
    return decoder_reach(config.decoder)
