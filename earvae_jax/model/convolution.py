"""Convolutions over time, and weight norm, as pure functions; arrays are [B, T, C]."""

from typing import Literal, TypeVar

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

_Kernel = TypeVar("_Kernel", np.ndarray, Array)


def weight_norm(
    gain: Float[Array, " G"], direction: Float[Array, "K I O"], *, axis: int
) -> Float[Array, "K I O"]:
    """gain · direction / ‖direction‖₂, with the norm over all axes but `axis`."""
    others = tuple(i for i in range(direction.ndim) if i != axis)
    norm = jnp.sqrt(jnp.sum(jnp.square(direction), axis=others, keepdims=True))
    return direction * (jnp.expand_dims(gain, others) / norm)


def conv1d(
    x: Float[Array, "B T I"],
    kernel: Float[Array, "K I O"],
    bias: Float[Array, " O"] | None = None,
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: int | tuple[int, int] = 0,
    kernel_axes: Literal["WIO", "OWI"] = "WIO",
) -> Float[Array, "B T2 O"]:
    """Cross-correlation over time with zero padding, as `torch.nn.functional.conv1d`.

    `kernel_axes` is the order of width, inputs and outputs in `kernel`; cuDNN reads "OWI" as it is.
    """
    sides = (padding, padding) if isinstance(padding, int) else padding
    y = lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        window_strides=(stride,),
        padding=(sides,),
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", kernel_axes, "NWC"),
    )
    return y if bias is None else y + bias.astype(x.dtype)


def conv1d_in_rows(
    x: Float[Array, "B T I"],
    kernel: Float[Array, "K I O"],
    bias: Float[Array, " O"] | None = None,
    *,
    dilation: int,
    padding: int,
    kernel_axes: Literal["WIO", "OWI"] = "WIO",
) -> Float[Array, "B T2 O"]:
    """`conv1d` with a dilation, as one without over rows of `dilation` steps; for GPUs.

    The taps of a dilated kernel lie under each other in the rows, which lie in memory as the signal does.
    cuDNN's convolutions with a dilation of 9 take twice as long as those without (docs/performance.md). And
    it has no kernel's gradient with a dilation: XLA makes it a convolution whose kernel is as long as the
    signal, of transposed copies of both operands. In rows it is an ordinary one.

    Raises:
      ValueError: the padding is no multiple of the dilation, or does not keep the length.
    """
    taps = kernel_axes.index("W")
    if 2 * padding != dilation * (kernel.shape[taps] - 1) or padding % dilation:
        raise ValueError(f"padding {padding} does not keep the length with a dilation of {dilation}")
    batch, length, inputs = x.shape
    rows = -(-length // dilation)
    filled = ((0, 0, 0), (0, rows * dilation - length, 0), (0, 0, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), filled)
    y = lax.conv_general_dilated(
        x.reshape(batch, rows, dilation, inputs),
        jnp.expand_dims(kernel.astype(x.dtype), taps + 1),
        window_strides=(1, 1),
        padding=((padding // dilation,) * 2, (0, 0)),
        dimension_numbers=("NHWC", kernel_axes.replace("W", "HW"), "NHWC"),
    )
    y = y.reshape(batch, rows * dilation, -1)[:, :length]
    return y if bias is None else y + bias.astype(x.dtype)


def conv_transpose1d(
    x: Float[Array, "B T I"],
    kernel: Float[Array, "K I O"],
    bias: Float[Array, " O"] | None = None,
    *,
    stride: int,
    padding: int,
) -> Float[Array, "B T2 O"]:
    """As `torch.nn.functional.conv_transpose1d`: T2 = (T − 1)·stride − 2·padding + K.

    In two steps, so that weights that never change take the first only once.
    """
    phases = phases_of(kernel, stride)
    return cut_upsampled(x, phases, bias, width=kernel.shape[0], stride=stride, padding=padding)


def phases_of(kernel: _Kernel, stride: int) -> _Kernel:
    """A transposed convolution's kernel [K, I, O] as an ordinary one, [⌈K/stride⌉, I, stride·O].

    Output t takes only every stride-th tap, so ⌈K/stride⌉ input steps give `stride` outputs by one stride-1
    convolution to stride·O channels and a reshape. XLA runs that several times faster than a convolution over
    an input with zeros put between its steps. Takes arrays of numpy and of JAX.
    """
    width, inputs, outputs = kernel.shape
    taps = -(-width // stride)
    xp = np if isinstance(kernel, np.ndarray) else jnp
    # kernel[j·stride + phase] multiplies the input j steps back: time runs backwards over the taps.
    phases = xp.pad(kernel, ((0, taps * stride - width), (0, 0), (0, 0)))
    phases = phases.reshape(taps, stride, inputs, outputs)[::-1].transpose(0, 2, 1, 3)
    return phases.reshape(taps, inputs, stride * outputs)


def cut_upsampled(
    x: Float[Array, "B T I"],
    phases: Float[Array, "taps I outputs"],
    bias: Float[Array, " O"] | None,
    *,
    width: int,
    stride: int,
    padding: int,
    kernel_axes: Literal["WIO", "OWI"] = "WIO",
) -> Float[Array, "B T2 O"]:
    """`conv_transpose1d` with the kernel of `phases_of`; `width` is that of the kernel before."""
    length = x.shape[1]
    y = upsampled(x, phases, stride=stride, kernel_axes=kernel_axes)
    y = lax.slice_in_dim(y, padding, padding + (length - 1) * stride - 2 * padding + width, axis=1)
    return y if bias is None else y + bias.astype(x.dtype)


def upsampled(
    x: Float[Array, "B T I"],
    phases: Float[Array, "taps I outputs"],
    bias: Float[Array, " O"] | None = None,
    *,
    stride: int,
    kernel_axes: Literal["WIO", "OWI"] = "WIO",
) -> Float[Array, "B T2 O"]:
    """`cut_upsampled` with what it cuts off: T2 = (T + taps − 1)·stride."""
    batch, length, _ = x.shape
    taps = phases.shape[kernel_axes.index("W")]
    # The input is padded beforehand: if a convolution's output is longer than its input, XLA computes the
    # weight gradient a hundred times slower on a CPU.
    x = jnp.pad(x, ((0, 0), (taps - 1, taps - 1), (0, 0)))
    y = conv1d(x, phases, None if bias is None else jnp.tile(bias, stride), kernel_axes=kernel_axes)
    return y.reshape(batch, (length + taps - 1) * stride, -1)
