"""The stacks of `planes.py` for a GPU.

cuDNN has no kernel's gradient with a dilation. XLA makes it a convolution whose kernel is as large as the
plane, of transposed copies of both operands. Here the taps of a dilated kernel lie under each other: d
frames are one row, and the same places of the next row are the frames d later. A few bins of zeros keep the
frames of a row apart, and frames of zeros fill the last row. They stay in all layers, so that rows and frames
are the same bytes.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from earvae_jax.train.formulations import planes
from earvae_jax.train.formulations.planes import PlaneLayer

_Guarded = Float[Array, "B K2 F2 C"]  # planes with zeros beyond their frames and bins


def conv_stack(
    x: Float[Array, "B K F I"], layers: Sequence[PlaneLayer], *, dilations: Sequence[int], slope: float
) -> list[Float[Array, "B K F O"]]:
    """The outputs of all layers; each is the input of the next layer. See `choice.conv_stack`."""
    outputs = guarded_outputs(x, layers, dilations=dilations, slope=slope)
    return [cut(y, x) for y in outputs]


def guarded_outputs(
    x: Float[Array, "B K F I"], layers: Sequence[PlaneLayer], *, dilations: Sequence[int], slope: float
) -> list[_Guarded]:
    """The outputs of all layers among zeros; `cut` takes those away."""
    size = x.shape[1:3]
    frames = -size[0] % math.lcm(*dilations)
    bins = max(kernel.shape[1] // 2 for kernel, _ in layers)
    # Without the barrier XLA makes it padding of the first convolution, unlike at both ends, for which cuDNN
    # has no kernel's gradient.
    x = lax.optimization_barrier(jnp.pad(x, ((0, 0), (0, frames), (0, bins), (0, 0))))
    outputs = []
    for place, ((kernel, bias), dilation) in enumerate(zip(layers, dilations, strict=True), start=1):
        x = _convolve(x, kernel, dilation) + bias
        x = _activation(x, slope, size) if place < len(layers) else _keep(x, size)
        outputs.append(x)
    return outputs


def gradient_of_input(
    outputs: Sequence[_Guarded],
    of_outputs: Sequence[_Guarded],
    layers: Sequence[PlaneLayer],
    *,
    size: Sequence[int],
    dilations: Sequence[int],
    slope: float,
) -> Float[Array, "B K F I"]:
    """The gradient at the input of `guarded_outputs`, from those at its outputs, for some items of a batch.

    `size` is the number of frames and bins of the input. The layers' own gradients are left out.
    """
    gradient = of_outputs[-1]
    for place in reversed(range(len(layers))):
        kernel = layers[place].kernel[::-1, ::-1].swapaxes(2, 3)
        gradient = _convolve(_keep(gradient, size), kernel, dilations[place])
        if place:
            gradient = _before_activation(outputs[place - 1], slope, gradient + of_outputs[place - 1])
    return gradient[:, : size[0], : size[1]]


def cut(guarded: _Guarded, plane: Float[Array, "B K F I"]) -> Float[Array, "B2 K F C"]:
    """The frames and bins that a plane has."""
    return guarded[:, : plane.shape[1], : plane.shape[2]]


def _convolve(x: _Guarded, kernel: Float[Array, "W V I O"], dilation: int) -> _Guarded:
    """Convolves with the frames of a row beside each other."""
    batch, frames, bins, inputs = x.shape
    rows = x.reshape(batch, frames // dilation, dilation * bins, inputs)
    return planes.convolve(rows, kernel, dilation=1).reshape(batch, frames, bins, -1)


def _keep(x: _Guarded, size: Sequence[int]) -> _Guarded:
    """Sets what is beyond the planes to zero."""
    frame, bin = (lax.broadcasted_iota(jnp.int32, x.shape, axis) for axis in (1, 2))
    return jnp.where((frame < size[0]) & (bin < size[1]), x, jnp.zeros((), x.dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _activation(x: _Guarded, slope: float, size: Sequence[int]) -> _Guarded:
    """The leaky ReLU, and zeros beyond the planes."""
    return _keep(planes.leaky_relu(x, slope), size)


def _forward(x, slope, size):
    y = _activation(x, slope, size)
    return y, y


def _backward(slope, size, y, gradient):
    return (_keep(_before_activation(y, slope, gradient), size),)


_activation.defvjp(_forward, _backward)


def _before_activation(y: Array, slope: float, gradient: Array) -> Array:
    """The gradient at the input of a leaky ReLU, which keeps the sign: its input need not be stored."""
    return lax.select(y >= 0, gradient, slope * gradient)
