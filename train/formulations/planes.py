"""The plain form of stacks of convolutions over planes of (time, frequency), `[B, K, F, C]`."""

from collections.abc import Sequence
from typing import NamedTuple

from jax import lax
from jaxtyping import Array, Float


class PlaneLayer(NamedTuple):
    """Kernel and bias of a convolution; W and V are odd."""

    kernel: Float[Array, "W V I O"]
    bias: Float[Array, " O"]


def conv_stack(
    x: Float[Array, "B K F I"],
    layers: Sequence[PlaneLayer],
    *,
    dilations: Sequence[int],
    slope: float,
) -> list[Float[Array, "B K F O"]]:
    """The outputs of all layers; each is the input of the next layer. See `choice.conv_stack`."""
    outputs = []
    for place, ((kernel, bias), dilation) in enumerate(zip(layers, dilations, strict=True), start=1):
        x = convolve(x, kernel, dilation=dilation) + bias
        if place < len(layers):
            x = leaky_relu(x, slope)
        outputs.append(x)
    return outputs


def leaky_relu(x: Float[Array, "..."], slope: float) -> Float[Array, "..."]:
    """Multiplies negative values by `slope`."""
    # Not jax.nn.leaky_relu: it is a jit, and becomes a call of its own in a function that is not inlined.
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
