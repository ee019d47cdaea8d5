"""The Oobleck encoder and decoder: strided convolutions between stacks of dilated residual units.

Module and attribute names are those of the published PyTorch code, so that weight names map one to one.
"""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from earvae_jax.model.antialias import AntialiasedActivation
from earvae_jax.model.config import DecoderConfig, EncoderConfig
from earvae_jax.model.layers import (
    Conv,
    Extent,
    Identity,
    NearestUpsample,
    Tanh,
    activation,
    downsampling_conv,
    upsampling_conv,
)

DILATIONS = (1, 3, 9)
RESIDUAL_WIDTH = 7


class ResidualUnit(nnx.Module):
    """x + conv1(act(conv7(act(x)))). Tied, both activations are one object, with one α and β. Length: T."""

    def __init__(
        self, channels: int, dilation: int, *, use_snake: bool, tied: bool, bias: bool, rngs: nnx.Rngs | None
    ):
        first = activation(channels, use_snake=use_snake)
        second = first if tied else activation(channels, use_snake=use_snake)
        width, padding = RESIDUAL_WIDTH, dilation * (RESIDUAL_WIDTH - 1) // 2
        wide = Conv(channels, channels, width, dilation=dilation, padding=padding, bias=bias, rngs=rngs)
        pointwise = Conv(channels, channels, 1, bias=bias, rngs=rngs)
        self.layers: nnx.List[Any] = nnx.List([first, wide, second, pointwise])

    def __call__(self, x: Float[Array, "B T C"], extent: Extent | None = None) -> Float[Array, "B T C"]:
        activate, wide, activate_again, pointwise = self.layers
        return x + pointwise(activate_again(wide(activate(x), extent)))


class EncoderBlock(nnx.Module):
    """Three residual units and a strided convolution. Length: ⌊(T + 2⌈s/2⌉ − 2s)/s⌋ + 1."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        *,
        use_snake: bool,
        tied: bool,
        bias: bool,
        rngs: nnx.Rngs | None,
    ):
        self.stride = stride
        self.layers: nnx.List[Any] = nnx.List(
            [
                *(
                    ResidualUnit(inputs, dilation, use_snake=use_snake, tied=tied, bias=bias, rngs=rngs)
                    for dilation in DILATIONS
                ),
                activation(inputs, use_snake=use_snake),
                downsampling_conv(inputs, outputs, stride, bias=bias, rngs=rngs),
            ]
        )

    def __call__(self, x: Float[Array, "B T I"], extent: Extent | None = None) -> Float[Array, "B T2 O"]:
        *units, activate, downsample = self.layers
        for unit in units:
            x = unit(x, extent)
        return downsample(activate(x), extent)

    def extent_after(self, extent: Extent) -> Extent:
        """The positions that exist after this block."""
        return extent.downsampled(self.stride)


class DecoderBlock(nnx.Module):
    """Upsampling and three residual units. Length: (T − 1)s − 2⌈s/2⌉ + 2s, or T·s if it repeats steps."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        *,
        use_nearest_upsample: bool,
        use_snake: bool,
        tied: bool,
        antialias_activation: bool,
        bias: bool,
        rngs: nnx.Rngs | None,
    ):
        self.stride, self.nearest = stride, use_nearest_upsample
        upsample = NearestUpsample if use_nearest_upsample else upsampling_conv
        first = activation(inputs, use_snake=use_snake)
        self.layers: nnx.List[Any] = nnx.List(
            [
                AntialiasedActivation(first) if antialias_activation else first,
                upsample(inputs, outputs, stride, bias=bias, rngs=rngs),
                *(
                    ResidualUnit(outputs, dilation, use_snake=use_snake, tied=tied, bias=bias, rngs=rngs)
                    for dilation in DILATIONS
                ),
            ]
        )

    def __call__(self, x: Float[Array, "B T I"], extent: Extent | None = None) -> Float[Array, "B T2 O"]:
        activate, upsample, *units = self.layers
        x = activate(x, extent) if isinstance(activate, AntialiasedActivation) else activate(x)
        x = upsample(x, extent)
        after = None if extent is None else self.extent_after(extent)
        for unit in units:
            x = unit(x, after)
        return x

    def extent_after(self, extent: Extent) -> Extent:
        """The positions that exist after this block."""
        return extent.upsampled(self.stride, nearest=self.nearest)


class Encoder(nnx.Module):
    """Maps audio [B, T, C] to mean and scale [B, N, 2·D]; `lengths.latents_of` gives N."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs | None):
        widths, snake, tied, bias = config.widths, config.use_snake, config.tied_activations, config.bias
        last = activation(widths[-1], use_snake=snake)
        self.layers: nnx.List[Any] = nnx.List(
            [
                Conv(config.in_channels, widths[0], 7, padding=3, bias=bias, rngs=rngs),
                *(
                    EncoderBlock(inputs, outputs, stride, use_snake=snake, tied=tied, bias=bias, rngs=rngs)
                    for inputs, outputs, stride in zip(widths[:-1], widths[1:], config.strides, strict=True)
                ),
                AntialiasedActivation(last) if config.antialias_activation else last,
                Conv(widths[-1], config.latent_dim, 3, padding=1, bias=bias, rngs=rngs),
            ]
        )

    def __call__(self, x: Float[Array, "B T C"], extent: Extent | None = None) -> Float[Array, "B N E"]:
        return _run(self.layers, x, extent)


class Decoder(nnx.Module):
    """Maps latents [B, N, D] to audio [B, T, C]; `lengths.samples_of` gives T."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs | None):
        widths, snake, tied, bias = config.widths, config.use_snake, config.tied_activations, config.bias
        last = activation(widths[0], use_snake=snake)
        blocks = zip(widths[:0:-1], widths[-2::-1], config.strides[::-1], strict=True)
        self.layers: nnx.List[Any] = nnx.List(
            [
                Conv(config.latent_dim, widths[-1], 7, padding=3, bias=bias, rngs=rngs),
                *(
                    DecoderBlock(
                        inputs,
                        outputs,
                        stride,
                        use_nearest_upsample=config.use_nearest_upsample,
                        use_snake=snake,
                        tied=tied,
                        antialias_activation=config.antialias_activation,
                        bias=bias,
                        rngs=rngs,
                    )
                    for inputs, outputs, stride in blocks
                ),
                AntialiasedActivation(last) if config.antialias_activation else last,
                Conv(widths[0], config.out_channels, 7, padding=3, bias=False, rngs=rngs),
                Tanh() if config.final_tanh else Identity(),
            ]
        )

    def __call__(self, x: Float[Array, "B N D"], extent: Extent | None = None) -> Float[Array, "B T C"]:
        return _run(self.layers, x, extent)


def _run(layers: nnx.List, x: Float[Array, "B T C"], extent: Extent | None) -> Float[Array, "B T2 C2"]:
    for layer in layers:
        if isinstance(layer, Conv | AntialiasedActivation):
            x = layer(x, extent)
        elif isinstance(layer, EncoderBlock | DecoderBlock):
            x = layer(x, extent)
            extent = None if extent is None else layer.extent_after(extent)
        else:
            x = layer(x)
    return x
