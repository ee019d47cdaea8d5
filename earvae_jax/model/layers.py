"""The layers that the Oobleck encoder and decoder are made of.

Arrays are [B, T, C]. A window of a longer file carries an `Extent`, the positions that exist in the file.
Every convolution then sees zeros elsewhere, exactly where a run over the whole file pads with zeros.
"""

import math
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from earvae_jax.model.convolution import conv1d, conv1d_in_rows, conv_transpose1d, weight_norm
from earvae_jax.model.initial_values import constant, norms, uniform
from earvae_jax.model.lengths import downsampled_length, resampling_padding, upsampled_length
from earvae_jax.model.snake import amplitude_of, frequency_of, snake

_Module = TypeVar("_Module", bound=nnx.Module)


class Buffer(nnx.Variable):
    """A constant in the weight file that the model applies but does not train."""


class Extent(NamedTuple):
    """The positions start ≤ t < stop of each window that exist in its file."""

    start: Int[Array, " B"]
    stop: Int[Array, " B"]

    def keep(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        """Sets the values outside to zero, NaN included."""
        position = lax.broadcasted_iota(jnp.int32, (1, x.shape[1], 1), 1)
        inside = (position >= self.start[:, None, None]) & (position < self.stop[:, None, None])
        return jnp.where(inside, x, jnp.zeros((), x.dtype))

    def replicate(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        """Repeats the first and the last existing value outside."""
        position = lax.broadcasted_iota(jnp.int32, (1, x.shape[1], 1), 1)
        first = jnp.clip(self.start, 0, x.shape[1] - 1)[:, None, None]
        last = jnp.clip(self.stop - 1, 0, x.shape[1] - 1)[:, None, None]
        x = jnp.where(position < first, jnp.take_along_axis(x, first, axis=1), x)
        return jnp.where(position > last, jnp.take_along_axis(x, last, axis=1), x)

    def downsampled(self, stride: int) -> "Extent":
        """The extent after a strided convolution; a window starts at a multiple of all strides."""
        return Extent(self.start // stride, downsampled_length(self.stop, stride))

    def upsampled(self, stride: int, *, nearest: bool) -> "Extent":
        """The extent after upsampling; nearest-neighbour repetition gives T·stride for odd strides too."""
        stop = self.stop * stride if nearest else upsampled_length(self.stop, stride)
        return Extent(self.start * stride, stop)


class SnakeBeta(nnx.Module):
    """x + sin²(x·eᵅ) / (eᵝ + 1e-9), with α and β per channel.

    Attributes:
      function: computes it of x, frequency and amplitude.
    """

    function = staticmethod(snake)

    def __init__(self, channels: int):
        self.is_folded = False
        self.alpha = nnx.Param(constant(np.zeros(channels, np.float32)))
        self.beta = nnx.Param(constant(np.zeros(channels, np.float32)))

    @property
    def frequency(self) -> Float[Array, " C"]:
        """eᵅ."""
        return self.folded_frequency[...] if self.is_folded else frequency_of(self.alpha[...])

    @property
    def amplitude(self) -> Float[Array, " C"]:
        """1/(eᵝ + 1e-9)."""
        return self.folded_amplitude[...] if self.is_folded else amplitude_of(self.beta[...])

    def fold(self) -> None:
        """Replaces α and β by frequency and amplitude."""
        if not self.is_folded:  # a residual unit holds one activation twice
            alpha, beta = np.asarray(self.alpha[...]), np.asarray(self.beta[...])
            with np.errstate(all="ignore"):  # as for the convolutions' weights
                self.folded_frequency = Buffer(constant(np.exp(alpha)))
                self.folded_amplitude = Buffer(constant(1 / (np.exp(beta) + np.float32(1e-9))))
            del self.alpha, self.beta
            self.is_folded = True

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        return self.function(x, self.frequency, self.amplitude)


class Elu(nnx.Module):
    """The activation of models without snake."""

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        return jax.nn.elu(x)


class Tanh(nnx.Module):
    """The tanh at the end of the decoder."""

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        return jnp.tanh(x)


class Identity(nnx.Module):
    """Takes the place of a layer that does nothing in the published layer list."""

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        return x


def activation(channels: int, *, use_snake: bool) -> nnx.Module:
    """SnakeBeta, or ELU."""
    return SnakeBeta(channels) if use_snake else Elu()


def uniform_param(shape: tuple[int, ...], bound: float, rngs: nnx.Rngs | None) -> nnx.Param:
    """A trained array, initially uniform in ±bound: torch's initialisation with bound = 1/√fan-in.

    Without `rngs` it has only a shape, for a model whose arrays come from a checkpoint.
    """
    if rngs is None:
        return nnx.Param(jax.ShapeDtypeStruct(shape, jnp.float32))
    return nnx.Param(uniform(rngs, shape, bound))


class WeightNormed(nnx.Module):
    """The parameters of a convolution with weight norm, as torch has them and initialises them.

    Attributes:
      direction: [*width, I, O].
      gain: [G], one for each index of the direction's `gain_axis`.
      bias: [O] or None.
    """

    gain_axis: int
    _fan_in_axis: int  # torch takes the fan-in from the width and this axis

    def __init__(self, shape: tuple[int, ...], *, bias: bool, rngs: nnx.Rngs | None):
        self.is_folded = False
        bound = (math.prod(shape[:-2]) * shape[self._fan_in_axis]) ** -0.5
        self.direction = uniform_param(shape, bound, rngs)
        self.gain = uniform_param((shape[self.gain_axis],), 0.0, rngs)
        if rngs is not None:
            self.gain.set_value(norms(self.direction[...], axis=self.gain_axis))
        self.bias = uniform_param(shape[-1:], bound, rngs) if bias else None

    @property
    def kernel(self) -> Float[Array, "*K I O"]:
        """The weight, computed from gain and direction."""
        if self.is_folded:
            return self.folded_kernel[...]
        return weight_norm(self.gain[...], self.direction[...], axis=self.gain_axis)

    def fold(self) -> None:
        """Replaces gain and direction by the weight; a shape stays a shape."""
        direction = self.direction.get_value()
        is_shape = isinstance(direction, jax.ShapeDtypeStruct)
        self.folded_kernel = Buffer(direction if is_shape else constant(self._kernel_on_host()))
        del self.gain, self.direction
        self.is_folded = True

    def _kernel_on_host(self) -> Float[np.ndarray, "*K I O"]:
        # In numpy, since compiling a program for each shape would cost more than the arithmetic.
        gain, direction = np.asarray(self.gain[...]), np.asarray(self.direction[...])
        others = tuple(axis for axis in range(direction.ndim) if axis != self.gain_axis)
        with np.errstate(all="ignore"):  # weights out of range show in the outputs
            norm = np.sqrt(np.sum(np.square(direction), axis=others, keepdims=True, dtype=np.float64))
            return direction * (np.expand_dims(gain, others) / norm).astype(np.float32)


class Conv(WeightNormed):
    """A convolution over time with weight norm.

    Length: ⌊(T + 2·padding − dilation·(width − 1) − 1)/stride⌋ + 1.

    Attributes:
      in_rows: computes a dilation by `conv1d_in_rows`.
    """

    gain_axis = 2  # one gain for each output channel
    in_rows = False
    _fan_in_axis = 1

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
        rngs: nnx.Rngs | None,
    ):
        super().__init__((width, inputs, outputs), bias=bias, rngs=rngs)
        self.width, self.stride, self.dilation, self.padding = width, stride, dilation, padding

    def __call__(self, x: Float[Array, "B T I"], extent: Extent | None = None) -> Float[Array, "B T2 O"]:
        if extent is not None and self.width > 1:
            x = extent.keep(x)
        return self._convolve(x)

    def _convolve(self, x: Float[Array, "B T I"]) -> Float[Array, "B T2 O"]:
        bias = _value(self.bias)
        if self.in_rows and self.dilation > 1 and isinstance(self.padding, int):
            return conv1d_in_rows(x, self.kernel, bias, dilation=self.dilation, padding=self.padding)
        return conv1d(
            x,
            self.kernel,
            bias,
            stride=self.stride,
            dilation=self.dilation,
            padding=self.padding,
        )


class ConvTranspose(Conv):
    """A transposed convolution over time with weight norm: one gain for each input channel.

    Length: (T − 1)·stride − 2·padding + width.
    """

    gain_axis = 1
    _fan_in_axis = 2  # the outputs: axis 1 of torch's weight
    padding: int  # the same on both sides

    def _convolve(self, x: Float[Array, "B T I"]) -> Float[Array, "B T2 O"]:
        return conv_transpose1d(x, self.kernel, _value(self.bias), stride=self.stride, padding=self.padding)


class NearestUpsample(nnx.Module):
    """Repeats every step `stride` times, then convolves with width 2·stride. Length: T·stride."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, bias: bool, rngs: nnx.Rngs | None):
        self.stride = stride
        width = 2 * stride
        sides = ((width - 1) // 2, width - 1 - (width - 1) // 2)  # torch's padding="same"
        self.conv = Conv(inputs, outputs, width, padding=sides, bias=bias, rngs=rngs)

    def __call__(self, x: Float[Array, "B T I"], extent: Extent | None = None) -> Float[Array, "B T2 O"]:
        upsampled = None if extent is None else extent.upsampled(self.stride, nearest=True)
        return self.conv(jnp.repeat(x, self.stride, axis=1), upsampled)


def downsampling_conv(inputs: int, outputs: int, stride: int, *, bias: bool, rngs: nnx.Rngs | None) -> Conv:
    """The convolution that ends an encoder block."""
    padding = resampling_padding(stride)
    return Conv(inputs, outputs, 2 * stride, stride=stride, padding=padding, bias=bias, rngs=rngs)


def upsampling_conv(
    inputs: int, outputs: int, stride: int, *, bias: bool, rngs: nnx.Rngs | None
) -> ConvTranspose:
    """The transposed convolution that begins a decoder block."""
    padding = resampling_padding(stride)
    return ConvTranspose(inputs, outputs, 2 * stride, stride=stride, padding=padding, bias=bias, rngs=rngs)


def _value(variable: nnx.Variable | None) -> Array | None:
    return None if variable is None else variable[...]


def folded(model: _Module) -> _Module:
    """The same model with weight norms and snake parameters computed once, here; for inference."""
    model = nnx.merge(*nnx.split(model))  # new modules, the same arrays
    for _, module in nnx.iter_modules(model):
        if isinstance(module, WeightNormed | SnakeBeta):
            module.fold()
    return model
