"""Weights of encoder and decoder in the form that `chunked` uses: folded, transformed, in two taps."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from earvae_jax.infer.formulations import toom_cook
from earvae_jax.model.layers import Conv, SnakeBeta, folded
from earvae_jax.model.oobleck import Decoder, Encoder, ResidualUnit


class SnakeWeights(NamedTuple):
    """eᵅ and 1/(eᵝ + 1e-9)."""

    frequency: Float[Array, " C"]
    amplitude: Float[Array, " C"]


class ConvWeights(NamedTuple):
    """A convolution; the bias is zero where the model has none."""

    kernel: Float[Array, "K I O"]
    bias: Float[Array, " O"]


class UnitWeights(NamedTuple):
    """A residual unit: its snakes, the seven kernels of the wide convolution with its bias, and the 1×1."""

    snake: SnakeWeights
    kernels: tuple[Float[Array, "2 C C"], ...]
    bias: Float[Array, " C"]
    second_snake: SnakeWeights  # after the wide convolution; equal to the first where they are tied
    pointwise: ConvWeights


class LevelWeights(NamedTuple):
    """A block; `resample` has two taps, over s·I inputs (down) or to s·O outputs (up)."""

    units: tuple[UnitWeights, ...]
    snake: SnakeWeights
    resample: ConvWeights

    @property
    def channels(self) -> int:
        """Width of the residual units."""
        return len(self.units[0].bias)


class HalfWeights(NamedTuple):
    """Encoder or decoder."""

    first: ConvWeights
    levels: tuple[LevelWeights, ...]
    snake: SnakeWeights
    last: ConvWeights


def encoder_weights(encoder: Encoder) -> HalfWeights:
    """The weights of an encoder."""
    blocks: list[Any]  # nnx.List does not state the type of its items
    first, *blocks, activation, last = folded(encoder).layers
    levels = [_level(block.layers[:3], block.layers[3], _down(block.layers[4])) for block in blocks]
    return HalfWeights(_conv(first), tuple(levels), _snake(activation), _conv(last))


def decoder_weights(decoder: Decoder) -> HalfWeights:
    """The weights of a decoder; `_by_tap` gives its last convolution."""
    blocks: list[Any]  # as above
    first, *blocks, activation, last, _ = folded(decoder).layers
    levels = [
        _level(block.layers[2:], block.layers[0], _up(block.layers[1], block.stride)) for block in blocks
    ]
    return HalfWeights(_conv(first), tuple(levels), _snake(activation), _by_tap(last))


def _level(units: Sequence[ResidualUnit], activation: SnakeBeta, resample: ConvWeights) -> LevelWeights:
    return LevelWeights(tuple(map(_unit, units)), _snake(activation), resample)


def _unit(unit: ResidualUnit) -> UnitWeights:
    first, wide, second, pointwise = unit.layers
    kernel, bias = _conv(wide)
    kernels = tuple(map(_on_host, toom_cook.transform_kernel(_on_host(kernel))))
    return UnitWeights(_snake(first), kernels, bias, _snake(second), _conv(pointwise))


def _snake(activation: SnakeBeta) -> SnakeWeights:
    return SnakeWeights(_on_host(activation.frequency), _on_host(activation.amplitude))


def _conv(conv: Conv) -> ConvWeights:
    kernel = _on_host(conv.kernel)
    bias = np.zeros(kernel.shape[2], np.float32) if conv.bias is None else conv.bias[...]
    return ConvWeights(kernel, _on_host(bias))


def _on_host(array: Array | np.ndarray) -> Any:
    """The array in NumPy, for fields declared as JAX's: weights become those on a device."""
    return np.asarray(array)


def _down(conv: Conv) -> ConvWeights:
    kernel, bias = _conv(conv)
    return ConvWeights(kernel.reshape(2, -1, kernel.shape[2]), bias)


def _up(conv: Conv, stride: int) -> ConvWeights:
    kernel, bias = _conv(conv)  # kernel[j·s + phase] multiplies the input j steps back
    taps = _on_host(np.stack([kernel[stride:], kernel[:stride]]).transpose(0, 2, 1, 3))
    return ConvWeights(taps.reshape(2, kernel.shape[1], -1), _on_host(np.tile(bias, stride)))


def _by_tap(conv: Conv) -> ConvWeights:
    """A convolution of width 7 as one of width 1 to the products of all seven taps; without a bias."""
    kernel, bias = _conv(conv)
    return ConvWeights(kernel.transpose(1, 0, 2).reshape(1, kernel.shape[1], -1), bias)
