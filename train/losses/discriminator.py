"""The multi-scale complex-STFT discriminator (EnCodec, arXiv 2210.13438) in the Oobleck recipe's form."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from earvae_jax.model.layers import WeightNormed
from earvae_jax.signal.spectral import hann_window, stft
from earvae_jax.train.config import DiscriminatorConfig
from earvae_jax.train.formulations.choice import conv_stack
from earvae_jax.train.formulations.planes import PlaneLayer

_WIDE, _NARROW = (3, 9), (3, 3)  # kernels over (time, frequency)
SLOPE = 0.2  # of the leaky ReLU


class Conv2d(WeightNormed):
    """The parameters of a convolution over (time, frequency) with weight norm, dilated along time."""

    gain_axis = 3  # one gain for each output channel
    _fan_in_axis = 2

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: tuple[int, int],
        *,
        dilation: int = 1,
        rngs: nnx.Rngs | None,
    ):
        super().__init__((*width, inputs, outputs), bias=True, rngs=rngs)
        self.dilation = dilation

    def layer(self, dtype: jnp.dtype) -> PlaneLayer:
        """Kernel and bias to compute with."""
        assert self.bias is not None
        return PlaneLayer(self.kernel.astype(dtype), self.bias[...].astype(dtype))


class STFTDiscriminator(nnx.Module):
    """Judges the complex spectrum at one resolution; planes are the channels' real and imaginary parts."""

    def __init__(self, n_fft: int, channels: int, config: DiscriminatorConfig, *, rngs: nnx.Rngs | None):
        self.n_fft = n_fft
        filters = config.filters
        self.convs = nnx.List(
            [
                Conv2d(2 * channels, filters, _WIDE, rngs=rngs),
                *(Conv2d(filters, filters, _WIDE, dilation=d, rngs=rngs) for d in config.dilations),
                Conv2d(filters, filters, _NARROW, rngs=rngs),
            ]
        )
        self.conv_post = Conv2d(filters, 1, _NARROW, rngs=rngs)

    def planes(self, audio: Float[Array, "B T C"]) -> Float[Array, "B K F P"]:
        """Real parts of all channels, then imaginary parts, times 1/√Σ window²; K = ⌊(T − n_fft)/hop⌋ + 1."""
        spectrum = stft(audio, n_fft=self.n_fft, hop_length=self.n_fft // 4, center=False)  # [B, C, K, F]
        scale = 1 / np.sqrt(np.sum(np.square(hann_window(self.n_fft))))
        planes = jnp.concatenate([spectrum.real, spectrum.imag], axis=1) * scale
        return planes.transpose(0, 2, 3, 1)

    def __call__(
        self, audio: Float[Array, "B T C"], dtype: jnp.dtype = jnp.float32
    ) -> tuple[Float[Array, "B K F 1"], list[Float[Array, "B K F H"]]]:
        """The judgement of every bin and the feature maps after each activation, computed in `dtype`."""
        *features, judgement = conv_stack(
            self.planes(audio).astype(dtype), self.layers(dtype), dilations=self.dilations, slope=SLOPE
        )
        return judgement, features

    @property
    def dilations(self) -> list[int]:
        """Of all layers, along time."""
        return [conv.dilation for conv in (*self.convs, self.conv_post)]

    def layers(self, dtype: jnp.dtype) -> list[PlaneLayer]:
        """Kernels and biases of all layers."""
        return [conv.layer(dtype) for conv in (*self.convs, self.conv_post)]


class Discriminator(nnx.Module):
    """One `STFTDiscriminator` per resolution."""

    def __init__(self, config: DiscriminatorConfig, channels: int, *, rngs: nnx.Rngs | None):
        self.discriminators = nnx.List(
            [STFTDiscriminator(n_fft, channels, config, rngs=rngs) for n_fft in config.n_ffts]
        )

    def __call__(
        self, audio: Float[Array, "B T C"], dtype: jnp.dtype = jnp.float32
    ) -> tuple[Sequence[Float[Array, "B K F 1"]], Sequence[Sequence[Float[Array, "B K F H"]]]]:
        """Judgements and feature maps, one list entry for each resolution."""
        outputs = [discriminator(audio, dtype) for discriminator in self.discriminators]
        return [judgement for judgement, _ in outputs], [features for _, features in outputs]
