"""For a GPU: the model's own modules, with weights cast and laid out once, when the model is loaded.

cuDNN reads a kernel as [O, K, I], and in the type of the activations. From the modules' float32 [K, I, O] XLA
casts and transposes every kernel and casts every bias at each call: 74 of the 155 kernels of an encoder's
program, and as much memory traffic for a short window as a third of the rest. The arithmetic is the same, but
in bfloat16 for two things that an H200 was slow at: convolutions with a dilation of 9 are computed in rows,
and snakes have a shorter sine.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PyTree

from earvae_jax.model.convolution import conv1d, conv1d_in_rows, cut_upsampled, phases_of
from earvae_jax.model.initial_values import constant
from earvae_jax.model.layers import Buffer, Conv, ConvTranspose, NearestUpsample, SnakeBeta, folded
from earvae_jax.model.oobleck import Decoder, DecoderBlock, Encoder, EncoderBlock, ResidualUnit
from earvae_jax.model.snake import short_snake, snake

# For which cuDNN takes no longer than without, in bfloat16 on an H200.
_MOST_DILATED = 3


def snake_for(dtype: jnp.dtype) -> Callable[..., Any]:
    """The snake that a GPU computes of activations of this type."""
    return short_snake if dtype == jnp.bfloat16 else snake


def row_of(dilation: int, dtype: jnp.dtype) -> int:
    """Steps of the rows in which cuDNN is given a convolution with a dilation; 1: it is given as it is.

    float32 was not measured in rows.
    """
    return dilation if dilation > _MOST_DILATED and dtype == jnp.bfloat16 else 1


class LaidOutFormulation:
    """Runs the model's own modules with kernels [O, K, I] in the type of the activations."""

    compiler_options = None
    free_padding = False

    def __init__(self, dtype: str):
        self._dtype = jnp.dtype(dtype)

    def encoder(self, encoder: Encoder) -> tuple[PyTree, Any]:
        """Weights and function of the encoder."""
        return self._half(encoder)

    def decoder(self, decoder: Decoder) -> tuple[PyTree, Any]:
        """Weights and function of the decoder."""
        return self._half(decoder)

    def _half(self, half: Encoder | Decoder) -> tuple[PyTree, Any]:
        graph, weights = nnx.split(laid_out(half, self._dtype))
        return nnx.as_pure(weights), lambda weights, x, extent: nnx.merge(graph, weights)(x, extent)


class LaidOutConv(Conv):
    """A folded convolution with its kernel as [O, K, I]."""

    def __init__(self, conv: Conv, dtype: np.dtype):
        self.width, self.stride = conv.width, conv.stride
        self.dilation, self.padding = conv.dilation, conv.padding
        self.is_folded = True
        self.outputs_first = Buffer(cast(self._kernel_to_lay_out(conv).transpose(2, 0, 1), dtype))
        self.bias = None if conv.bias is None else nnx.Param(cast(np.asarray(conv.bias[...]), dtype))

    @staticmethod
    def _kernel_to_lay_out(conv: Conv) -> Float[np.ndarray, "K I O"]:
        return np.asarray(conv.kernel)

    def _convolve(self, x: Float[Array, "B T I"]) -> Float[Array, "B T2 O"]:
        bias = None if self.bias is None else self.bias[...]
        options: dict[str, Any] = {"padding": self.padding, "dilation": self.dilation, "kernel_axes": "OWI"}
        if row_of(self.dilation, x.dtype) > 1:
            return conv1d_in_rows(x, self.outputs_first[...], bias, **options)
        return conv1d(x, self.outputs_first[...], bias, stride=self.stride, **options)


class LaidOutConvTranspose(LaidOutConv):
    """A folded transposed convolution; its kernel is that of the phases, [stride·O, taps, I]."""

    padding: int

    @staticmethod
    def _kernel_to_lay_out(conv: Conv) -> Float[np.ndarray, "K I O"]:
        return phases_of(np.asarray(conv.kernel), conv.stride)

    def _convolve(self, x: Float[Array, "B T I"]) -> Float[Array, "B T2 O"]:
        return cut_upsampled(
            x,
            self.outputs_first[...],
            None if self.bias is None else self.bias[...],
            width=self.width,
            stride=self.stride,
            padding=self.padding,
            kernel_axes="OWI",
        )


def laid_out(half: Encoder | Decoder, dtype: np.dtype) -> Encoder | Decoder:
    """The same half for inference on a GPU, all convolutions laid out."""
    return with_short_snakes(replaced_convolutions(half, dtype, LaidOutConv, LaidOutConvTranspose), dtype)


def with_short_snakes(half: Encoder | Decoder, dtype: np.dtype) -> Encoder | Decoder:
    """The half itself, its snakes those for a GPU."""
    for _, module in nnx.iter_modules(half):
        if isinstance(module, SnakeBeta):
            module.function = snake_for(dtype)
    return half


def replaced_convolutions(
    half: Encoder | Decoder,
    dtype: np.dtype,
    conv: Callable[[Conv, np.dtype], Conv],
    conv_transpose: Callable[[Conv, np.dtype], Conv],
) -> Encoder | Decoder:
    """The same half for inference, with other convolutions made of its own."""
    half = folded(half)

    def replaced(layer: Any) -> Any:
        if not isinstance(layer, Conv):
            return layer
        return (conv_transpose if isinstance(layer, ConvTranspose) else conv)(layer, dtype)

    for _, module in list(nnx.iter_modules(half)):
        if isinstance(module, NearestUpsample):
            module.conv = replaced(module.conv)
        elif isinstance(module, Encoder | Decoder | EncoderBlock | DecoderBlock | ResidualUnit):
            module.layers = nnx.List(map(replaced, module.layers))
    return half


def cast(array: np.ndarray, dtype: np.dtype) -> Array:
    """Weights as a device takes them."""
    with np.errstate(all="ignore"):  # weights out of range show in the outputs
        return constant(np.ascontiguousarray(array.astype(dtype)))
