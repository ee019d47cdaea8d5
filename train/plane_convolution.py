"""Convolutions over planes of (time, frequency), `[B, K, F, C]`, padded with zeros to the same size.

On a CPU XLA multiplies matrices with O columns, and the few channels of a discriminator keep its units half
idle; the gradient of a kernel it takes as a convolution with a kernel as large as the plane, for each tap
over time anew. There the taps over time become columns instead: one convolution over frequency gives a plane
for each of them, and the planes are shifted and added. Bias and activation belong to it, so that of a layer
only what the next one reads is stored.
"""

import functools
from collections.abc import Callable

import jax
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Float


def conv_planes(
    x: Float[Array, "B K F I"],
    kernel: Float[Array, "W V I O"],
    bias: Float[Array, " O"],
    *,
    dilation: int = 1,
    slope: float = 1.0,
) -> Float[Array, "B K F O"]:
    """Cross-correlation over (time, frequency), dilated along time, and a leaky ReLU; W and V are odd.

    The leaky ReLU multiplies what is negative by `slope`; 1 is none. Gradients are of reverse mode alone.

    Raises:
      ValueError: a slope that is not above 0 and at most 1: the gradient knows the sign from the result.
    """
    if not 0 < slope <= 1:
        raise ValueError(f"slope must be above 0 and at most 1, not {slope}")
    return lax.platform_dependent(
        x,
        kernel,
        bias,
        cpu=functools.partial(_on_cpu, dilation=dilation, slope=slope),
        default=functools.partial(_directly, dilation=dilation, slope=slope),
    )


def _directly(x, kernel, bias, *, dilation, slope):
    return _leaky_relu(_by_definition(x, kernel, dilation=dilation) + bias, slope)


def _leaky_relu(x, slope):
    # Not jax.nn.leaky_relu, which is a jit: within a function that is not inlined, a call of its own.
    return lax.select(x >= 0, x, slope * x) if slope < 1 else x


def _by_definition(x, kernel, *, dilation):
    time, frequency = kernel.shape[0] // 2 * dilation, kernel.shape[1] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding=((time, time), (frequency, frequency)),
        rhs_dilation=(dilation, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
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
        _later(planes[..., tap * outputs : (tap + 1) * outputs], (taps // 2 - tap) * dilation)
        for tap in range(taps)
    )


def _over_frequency(rows, kernel, width):
    return lax.conv_general_dilated(
        rows, kernel, (1,), ((width // 2, width // 2),), dimension_numbers=("NWC", "WIO", "NWC")
    )


def _later(x, frames):
    return lax.pad(x, x.dtype.type(0), ((0, 0, 0), (frames, -frames, 0), (0, 0, 0), (0, 0, 0)))


def _not_inlined(*static: str) -> Callable[[Callable], Callable]:
    """Makes a function one call in XLA's program, whose result is computed once and stored.

    Inlined, every reader of an activation computes it again in its own loops. A reader that transposes it,
    as the gradient of a kernel does, then walks through all its ingredients against their order in memory,
    which took longer than the convolutions.
    """

    def decorate(function):
        compiled = jax.jit(function, static_argnames=static)

        @functools.wraps(function)
        def call(*args, **options):
            with set_xla_metadata(inlineable="false"):
                return compiled(*args, **options)

        return call

    return decorate


@_not_inlined("dilation", "slope")
def _activated(x, kernel, bias, *, dilation, slope):
    return _leaky_relu(_by_taps(x, kernel, dilation=dilation) + bias, slope)


@_not_inlined("slope")
def _gradient_before_activation(y, gradient, *, slope):
    # The sign of what the leaky ReLU gives is the sign of what it got.
    return lax.select(y >= 0, gradient, slope * gradient)


@_not_inlined("dilation")
def _gradient_of_input(gradient, kernel, *, dilation):
    return _by_taps(gradient, kernel[::-1, ::-1].swapaxes(2, 3), dilation=dilation)


@_not_inlined("size", "dilation")
def _gradient_of_parameters(x, gradient, *, size, dilation):
    taps, width = size
    *_, bins, inputs = x.shape
    outputs = gradient.shape[-1]
    planes = lax.concatenate([_later(gradient, (tap - taps // 2) * dilation) for tap in range(taps)], 3)
    # In the order of dimensions that XLA's fast convolution needs: in a call it finds no other.
    rows = x.transpose(3, 2, 0, 1).reshape(inputs, bins, -1)
    columns = planes.transpose(2, 0, 1, 3).reshape(bins, -1, taps * outputs)
    found = _over_frequency(rows, columns, width)
    of_kernel = found.reshape(inputs, width, taps, outputs).transpose(2, 1, 0, 3)
    return of_kernel, gradient.sum((0, 1, 2))


@functools.partial(jax.custom_vjp, nondiff_argnames=("dilation", "slope"))
def _on_cpu(x, kernel, bias, dilation, slope):
    return _activated(x, kernel, bias, dilation=dilation, slope=slope)


def _forward(x, kernel, bias, dilation, slope):
    y = _on_cpu(x, kernel, bias, dilation, slope)
    return y, (x, kernel, y)


def _backward(dilation, slope, saved, gradient):
    x, kernel, y = saved
    if slope < 1:
        gradient = _gradient_before_activation(y, gradient, slope=slope)
    # Two calls, so that the one whose result nobody reads is left out.
    of_input = _gradient_of_input(gradient, kernel, dilation=dilation)
    return of_input, *_gradient_of_parameters(x, gradient, size=kernel.shape[:2], dilation=dilation)


_on_cpu.defvjp(_forward, _backward)
