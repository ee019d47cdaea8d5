"""Convolutions over time, and weight norm, as pure functions; arrays are [B, T, C]."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


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
) -> Float[Array, "B T2 O"]:
    """Cross-correlation over time with zero padding, as `torch.nn.functional.conv1d`."""
    sides = (padding, padding) if isinstance(padding, int) else padding
    y = lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        window_strides=(stride,),
        padding=(sides,),
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
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

    Polyphase: output t takes only every stride-th tap, so ⌈K/stride⌉ input steps give `stride` outputs by one
    stride-1 convolution to stride·O channels and a reshape. XLA runs that several times faster than a
    convolution over an input with zeros put between its steps.
    """
    width, inputs, outputs = kernel.shape
    batch, length, _ = x.shape
    taps = -(-width // stride)
    # kernel[j·stride + phase] multiplies the input j steps back: time runs backwards over the taps.
    phases = jnp.pad(kernel, ((0, taps * stride - width), (0, 0), (0, 0)))
    phases = phases.reshape(taps, stride, inputs, outputs)[::-1].transpose(0, 2, 1, 3)
    phases = phases.reshape(taps, inputs, stride * outputs)
    # The input is padded beforehand: if a convolution's output is longer than its input, XLA computes the
    # weight gradient a hundred times slower on a CPU.
    x = jnp.pad(x, ((0, 0), (taps - 1, taps - 1), (0, 0)))
    y = conv1d(x, phases).reshape(batch, (length + taps - 1) * stride, outputs)
    y = lax.slice_in_dim(y, padding, padding + (length - 1) * stride - 2 * padding + width, axis=1)
    return y if bias is None else y + bias.astype(x.dtype)
