"""The stacks of `planes.py` for a CPU.

On a CPU, XLA computes a convolution by products with matrices of O columns, so a discriminator's few channels
leave the processor's units half idle. XLA computes the gradient of a kernel as a convolution with a kernel as
large as the plane, again for each tap over time.

Here the taps over time become columns instead: one convolution over frequency gives a plane for each tap, and
the planes are shifted and added. The loop that adds them also does the elementwise work: bias and activation
in the forward pass, the gradients of feature maps and activations in the backward pass. A discriminator's
planes are larger than any cache, and each pass over one costs a third of a convolution.

On a Xeon an adversarial step takes 1.25 times as long with XLA's convolutions, neither in a call of its own
(`train/studies/formulation_benchmark.py`). Inside such a call XLA's convolution took forty times as long.
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
    """Convolves in the form that is fastest on a CPU."""
    _, width, inputs, outputs = kernel.shape
    if inputs == 1:
        return _by_products(x, kernel, dilation=dilation)
    if width < _WIDE and outputs > 1:
        return plain_convolve(x, kernel, dilation=dilation)
    return _by_taps(x, kernel, dilation=dilation)


# With so many taps over frequency or more, XLA's own convolution is slower.
_WIDE = 9


def _by_products(x, kernel, *, dilation):
    """Convolves one channel: sums its shifted copies times the taps, in one loop."""
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
    """Shifts by so many places along each axis and fills up with zeros."""
    return lax.pad(x, x.dtype.type(0), [(by, -by, 0) for by in places])


@not_inlined("dilation", "slope")
def _layer(x, kernel, bias, *, dilation, slope):
    return leaky_relu(_convolve(x, kernel, dilation=dilation) + bias, slope)


@not_inlined("dilation")
def _gradient_of_input(gradient, kernel, *, dilation):
    return _convolve(gradient, _transposed(kernel), dilation=dilation)


@not_inlined("dilation", "slope")
def _gradient_before_activation(gradient, kernel, y, gradient_of_y, *, dilation, slope):
    """Takes a gradient from behind the layer whose input is `y` to before the activation that gave `y`."""
    total = _convolve(gradient, _transposed(kernel), dilation=dilation) + gradient_of_y
    # The leaky ReLU keeps the sign.
    return lax.select(y >= 0, total, slope * total)


def _transposed(kernel):
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _gradient_of_parameters(x, gradient, *, size, dilation):
    """Convolves over frequency again: frames and items are the channels, taps over time the outputs."""
    columns = _later_copies(_bins_first(gradient), taps=size[0], dilation=dilation)
    of_kernel = _gradient_of_kernel(_channels_first(x), columns, size=size)
    return PlaneLayer(of_kernel, gradient.sum((0, 1, 2)))


# XLA's fast convolution needs these orders of dimensions, and XLA does not choose them inside a call. Each
# step is a call: one loop that shifts planes and changes their order would address every element by itself.


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
    """The outputs of all layers; each is the input of the next layer. See `choice.conv_stack`."""
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
    # One call for each result, so that a result that nobody reads is not computed.
    for place in reversed(range(len(kernels))):
        x, kernel, dilation = inputs[place], kernels[place], dilations[place]
        of_layers.append(_gradient_of_parameters(x, gradient, size=kernel.shape[:2], dilation=dilation))
        if place:
            step: Any = _gradient_before_activation
            # The caller may give one array as the gradient of both outputs; a call must not get it twice.
            if place == len(kernels) - 1 and gradient.shape == x.shape:
                step = step.__wrapped__
            gradient = step(gradient, kernel, x, of_outputs[place - 1], dilation=dilation, slope=slope)
    of_input = _gradient_of_input(gradient, kernels[0], dilation=dilations[0])
    return of_input, tuple(reversed(of_layers))


conv_stack.defvjp(_forward, _backward)
