"""What a fused residual unit needs of its modules, and its snake as the kernels compute it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from earvae_jax.model.layers import SnakeBeta
from earvae_jax.model.oobleck import RESIDUAL_WIDTH, ResidualUnit
from earvae_jax.model.snake import sin_squared_in_kernels, snake


class SnakeWeights(NamedTuple):
    """eᵅ and 1/(eᵝ + 1e-9)."""

    frequency: Float[Array, " C"]
    amplitude: Float[Array, " C"]


class UnitWeights(NamedTuple):
    """A residual unit with its kernels in the type of the activations, all else in float32."""

    first: SnakeWeights
    wide: Float[Array, "K C C"]
    wide_bias: Float[Array, " C"]
    second: SnakeWeights  # equal to the first where they are tied
    pointwise: Float[Array, "C C"]
    bias: Float[Array, " C"]
    dilation: int


def unit_weights(unit: ResidualUnit, dtype: jnp.dtype) -> UnitWeights:
    """The weights of a unit whose activations are snakes; a missing bias is zero."""
    first, wide, second, pointwise = unit.layers
    return UnitWeights(
        snake_weights(first),
        wide.kernel.astype(dtype),
        bias_of(wide),
        snake_weights(second),
        pointwise.kernel[0].astype(dtype),
        bias_of(pointwise),
        wide.dilation,
    )


def snake_weights(activation: SnakeBeta) -> SnakeWeights:
    """The weights of a snake."""
    return SnakeWeights(activation.frequency, activation.amplitude)


def snake_in_kernel(
    x: Float[Array, "M C"],
    frequency: Float[Array, " C"],
    amplitude: Float[Array, " C"],
    *,
    sine: Callable[[Float[Array, "M C"]], Float[Array, "M C"]] = sin_squared_in_kernels,
) -> Float[Array, "M C"]:
    """The snake of a tile in float32."""
    return snake(x.astype(jnp.float32), frequency[None], amplitude[None], sine=sine)


def precision_of(dtype: jnp.dtype) -> jax.lax.Precision | None:
    """Precision of a kernel's products: float32 follows JAX's setting, bfloat16 has one alone."""
    return None if dtype == np.float32 else jax.lax.Precision.DEFAULT


def cost_of_unit(x: Float[Array, "B T C"], *, passes: float) -> pl.CostEstimate:
    """What XLA cannot see of a unit that makes so many passes over its activation."""
    taps, channels = RESIDUAL_WIDTH + 1, x.shape[2]
    moved = passes * x.size + taps * channels * channels
    return pl.CostEstimate(
        flops=2 * taps * channels * x.size, bytes_accessed=int(moved * x.dtype.itemsize), transcendentals=0
    )


def bias_of(conv: Any) -> Float[Array, " C"]:
    """A convolution's bias in float32; a missing one is zero."""
    channels = conv.kernel.shape[2]
    return jnp.zeros(channels, jnp.float32) if conv.bias is None else conv.bias[...].astype(jnp.float32)
