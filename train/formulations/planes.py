"""Stacks of convolutions over planes of (time, frequency), `[B, K, F, C]`, as they are defined."""

from collections.abc import Sequence
from typing import NamedTuple

from jax import lax
from jaxtyping import Array, Float


class PlaneLayer(NamedTuple):
    """Kernel and bias of a convolution; W and V are odd."""

    kernel: Float[Array, "W V I O"]
    bias: Float[Array, " O"]


def conv_stack(
    x: Float[Array, "B K F I"], layers: Sequence[PlaneLayer], *, dilations: Sequence[int], slope: float
) -> list[Float[Array, "B K F O"]]:
    """What every layer gives, each the input of the next; see `choice.conv_stack`."""
    outputs = []
    for place, ((kernel, bias), dilation) in enumerate(zip(layers, dilations, strict=True), start=1):
        x = convolve(x, kernel, dilation=dilation) + bias
        if place < len(layers):
            x = leaky_relu(x, slope)
        outputs.append(x)
    return outputs


def leaky_relu(x: Float[Array, "..."], slope: float) -> Float[Array, "..."]:
    """What is negative times `slope`."""
    # Not jax.nn.leaky_relu, which is a jit: within a function that is not inlined, a call of its own.
    return lax.select(x >= 0, x, slope * x) if slope < 1 else x


def convolve(
    x: Float[Array, "B K F I"], kernel: Float[Array, "W V I O"], *, dilation: int
) -> Float[Array, "B K F O"]:
    """Cross-correlation over (time, frequency), dilated along time, padded to keep the size."""
    time, frequency = kernel.shape[0] // 2 * dilation, kernel.shape[1] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding=((time, time), (frequency, frequency)),
        rhs_dilation=(dilation, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
