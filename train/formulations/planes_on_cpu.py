"""The stacks of `planes.py` for a CPU.

There XLA multiplies matrices with O columns, and the few channels of a discriminator keep its units half
idle; the gradient of a kernel it takes as a convolution with a kernel as large as the plane, for each tap
over time anew. There the taps over time become columns instead: one convolution over frequency gives a plane
for each of them, and the planes are shifted and added. Whatever is elementwise belongs to the loop that adds
them, bias and activation forwards, the gradients of feature maps and activations backwards: planes of a
discriminator are larger than any cache, and each pass over one costs a third of a convolution.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from jax import lax
from jaxtyping import Array, Float

from earvae_jax.train.formulations.planes import PlaneLayer, leaky_relu
from earvae_jax.train.formulations.planes import convolve as plain_convolve
from earvae_jax.train.formulations.stored import not_inlined


def _convolve(x, kernel, *, dilation):
    """In the form that is fastest on a CPU."""
    _, width, inputs, outputs = kernel.shape
    if inputs == 1:
        return _by_products(x, kernel, dilation=dilation)
    if width < _WIDE and outputs > 1:
        return plain_convolve(x, kernel, dilation=dilation)
    return _by_taps(x, kernel, dilation=dilation)


# Taps over frequency from which on XLA's own convolution is the slower one.
_WIDE = 9


def _by_products(x, kernel, *, dilation):
    """Of one channel: its shifted copies times the taps, in one loop."""
    taps, width, _, _ = kernel.shape
    return sum(
        _shifted(x, (0, (taps // 2 - tap) * dilation, width // 2 - place, 0)) * kernel[tap, place, 0]
        for tap in range(taps)
        for place in range(width)
    )


def _by_taps(x, kernel, *, dilation):
    taps, width, inputs, outputs = kernel.shape
    batch, frames, bins, _ = x.shape
    planes = _over_frequency(
        x.reshape(batch * frames, bins, inputs),
        kernel.transpose(1, 2, 0, 3).reshape(width, inputs, taps * outputs),
        width,
    ).reshape(batch, frames, bins, taps * outputs)
    return sum(
        _shifted(planes[..., tap * outputs : (tap + 1) * outputs], (0, (taps // 2 - tap) * dilation, 0, 0))
        for tap in range(taps)
    )


def _over_frequency(rows, kernel, width):
    return lax.conv_general_dilated(
        rows, kernel, (1,), ((width // 2, width // 2),), dimension_numbers=("NWC", "WIO", "NWC")
    )


def _shifted(x, places):
    """By so many places along each axis, with zeros where nothing comes from."""
    return lax.pad(x, x.dtype.type(0), [(by, -by, 0) for by in places])


@not_inlined("dilation", "slope")
def _layer(x, kernel, bias, *, dilation, slope):
    return leaky_relu(_convolve(x, kernel, dilation=dilation) + bias, slope)


@not_inlined("dilation")
def _gradient_of_input(gradient, kernel, *, dilation):
    return _convolve(gradient, _transposed(kernel), dilation=dilation)


@not_inlined("dilation", "slope")
def _gradient_before_activation(gradient, kernel, y, gradient_of_y, *, dilation, slope):
    """From above a layer whose input is `y` to before the activation that gave `y`."""
    total = _convolve(gradient, _transposed(kernel), dilation=dilation) + gradient_of_y
    # The sign of what the leaky ReLU gives is the sign of what it got.
    return lax.select(y >= 0, total, slope * total)


def _transposed(kernel):
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _gradient_of_parameters(x, gradient, *, size, dilation):
    """A convolution over frequency again: frames and items are its channels, taps over time its outputs."""
    columns = _later_copies(_bins_first(gradient), taps=size[0], dilation=dilation)
    of_kernel = _gradient_of_kernel(_channels_first(x), columns, size=size)
    return PlaneLayer(of_kernel, gradient.sum((0, 1, 2)))


# XLA's fast convolution needs these orders of dimensions, and in a call it finds none by itself. A step at a
# time: in one loop over shifted planes in another order, every element is looked for by itself.


@not_inlined()
def _channels_first(x):
    return x.transpose(3, 2, 0, 1)


@not_inlined()
def _bins_first(x):
    return x.transpose(2, 0, 1, 3)


@not_inlined("taps", "dilation")
def _later_copies(x, *, taps, dilation):
    return lax.concatenate([_shifted(x, (0, 0, (tap - taps // 2) * dilation, 0)) for tap in range(taps)], 3)


@not_inlined("size")
def _gradient_of_kernel(rows, columns, *, size):
    taps, width = size
    inputs, bins = rows.shape[:2]
    found = _over_frequency(
        rows.reshape(inputs, bins, -1), columns.reshape(bins, -1, columns.shape[3]), width
    )
    return found.reshape(inputs, width, taps, -1).transpose(2, 1, 0, 3)


@functools.partial(jax.custom_vjp, nondiff_argnames=("dilations", "slope"))
def conv_stack(
    x: Float[Array, "B K F I"], layers: Sequence[PlaneLayer], dilations: tuple[int, ...], slope: float
) -> list[Float[Array, "B K F O"]]:
    """What every layer gives, each the input of the next; see `choice.conv_stack`."""
    outputs = []
    for place, ((kernel, bias), dilation) in enumerate(zip(layers, dilations, strict=True), start=1):
        x = _layer(x, kernel, bias, dilation=dilation, slope=slope if place < len(layers) else 1)
        outputs.append(x)
    return outputs


def _forward(x, layers, dilations, slope):
    outputs = conv_stack(x, layers, dilations, slope)
    return outputs, ([x, *outputs[:-1]], [layer.kernel for layer in layers])


def _backward(dilations, slope, saved, of_outputs):
    inputs, kernels = saved
    gradient = of_outputs[-1]
    of_layers = []
    # A call for each result, so that one which nobody reads is left out.
    for place in reversed(range(len(kernels))):
        x, kernel, dilation = inputs[place], kernels[place], dilations[place]
        of_layers.append(_gradient_of_parameters(x, gradient, size=kernel.shape[:2], dilation=dilation))
        if place:
            step: Any = _gradient_before_activation
            # What comes from outside may be one array for both outputs, which a call must not be given twice.
            if place == len(kernels) - 1 and gradient.shape == x.shape:
                step = step.__wrapped__
            gradient = step(gradient, kernel, x, of_outputs[place - 1], dilation=dilation, slope=slope)
    of_input = _gradient_of_input(gradient, kernels[0], dilation=dilations[0])
    return of_input, tuple(reversed(of_layers))


conv_stack.defvjp(_forward, _backward)
