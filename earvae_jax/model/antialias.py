"""An activation at twice the sample rate, as PyPI's `alias-free-torch` computes it (`Activation1d`)."""

import math

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from earvae_jax.model.initial_values import constant
from earvae_jax.model.layers import Buffer, Extent

_RATIO = 2
_TAPS = 12


def kaiser_sinc_filter(cutoff: float, half_width: float, taps: int) -> Float[np.ndarray, " K"]:
    """A windowed-sinc low-pass of unit gain at 0 Hz; cutoff and half-width in units of the sample rate."""
    attenuation = 2.285 * (taps // 2 - 1) * math.pi * 4 * half_width + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation >= 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    window = np.kaiser(taps, beta)
    time = np.arange(taps) - taps // 2 + (0.5 if taps % 2 == 0 else 0)
    response = 2 * cutoff * window * np.sinc(2 * cutoff * time)
    return (response / response.sum()).astype(np.float32)


class AntialiasedActivation(nnx.Module):
    """Upsamples ×2, applies the activation and downsamples ×2, with replicated edges. Length: T.

    The receptive field reaches five steps to each side.
    """

    def __init__(self, activation: nnx.Module):
        low_pass = kaiser_sinc_filter(0.5 / _RATIO, 0.6 / _RATIO, _TAPS)
        self.act = activation
        self.upsample_filter = Buffer(constant(low_pass))
        self.downsample_filter = Buffer(constant(low_pass))

    def __call__(self, x: Float[Array, "B T C"], extent: Extent | None = None) -> Float[Array, "B T C"]:
        if extent is None:
            return self._down(self.act(self._up(x)))
        # At both rates the edges of the file are repeated, not those of the window.
        twice = Extent(_RATIO * extent.start, _RATIO * extent.stop)
        return self._down(twice.replicate(self.act(self._up(extent.replicate(x)))))

    def _up(self, x: Float[Array, "B T C"]) -> Float[Array, "B T2 C"]:
        pad = _TAPS // _RATIO - 1
        x = jnp.pad(x, ((0, 0), (pad, pad), (0, 0)), mode="edge")
        kernel = self.upsample_filter[...].astype(x.dtype)
        # A transposed convolution is a convolution over the input with zeros between its steps.
        y = _depthwise(x, kernel[::-1], padding=_TAPS - 1, input_dilation=_RATIO)
        left = pad * _RATIO + (_TAPS - _RATIO) // 2
        right = pad * _RATIO + (_TAPS - _RATIO + 1) // 2
        return _RATIO * y[:, left : y.shape[1] - right]

    def _down(self, x: Float[Array, "B T2 C"]) -> Float[Array, "B T C"]:
        x = jnp.pad(x, ((0, 0), (_TAPS // 2 - 1, _TAPS // 2), (0, 0)), mode="edge")
        return _depthwise(x, self.downsample_filter[...].astype(x.dtype), stride=_RATIO)


def _depthwise(
    x: Float[Array, "B T C"],
    kernel: Float[Array, " K"],
    *,
    stride: int = 1,
    padding: int = 0,
    input_dilation: int = 1,
) -> Float[Array, "B T2 C"]:
    """Applies one filter to every channel."""
    channels = x.shape[-1]
    return lax.conv_general_dilated(
        x,
        jnp.broadcast_to(kernel[:, None, None], (kernel.shape[0], 1, channels)),
        window_strides=(stride,),
        padding=((padding, padding),),
        lhs_dilation=(input_dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=channels,
    )
