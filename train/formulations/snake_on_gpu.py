"""The snake with gradients in few kernels on a GPU."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from earvae_jax.model.snake import sin_squared, snake


@jax.custom_vjp
def snake_on_gpu(
    x: Float[Array, "*S C"], frequency: Float[Array, " C"], amplitude: Float[Array, " C"]
) -> Float[Array, "*S C"]:
    """`model.snake.snake`; only reverse-mode gradients are defined.

    The gradients of frequency and amplitude are one reduction of two values. As two, XLA adds what those of
    an activation that is used twice are taken of before it sums, and stores that in float32, as large as the
    activation and twice as wide.
    """
    return snake(x, frequency, amplitude)


def _forward(x, frequency, amplitude):
    return snake(x, frequency, amplitude), (x, frequency, amplitude)


def _backward(saved, gradient):
    x, frequency, amplitude = saved
    wide = jnp.promote_types(x.dtype, jnp.float32)
    y, g = x.astype(wide), gradient.astype(wide)
    angle = y * frequency.astype(wide)
    square, slope = jax.jvp(sin_squared, (angle,), (jnp.ones_like(angle),))
    of_angle = g * amplitude.astype(wide) * slope
    zero = jnp.zeros((), wide)
    of_frequency, of_amplitude = lax.reduce(
        (of_angle * y, g * square),
        (zero, zero),
        lambda sums, values: (sums[0] + values[0], sums[1] + values[1]),
        tuple(range(x.ndim - 1)),
    )
    of_x = (g + of_angle * frequency.astype(wide)).astype(x.dtype)
    return of_x, of_frequency.astype(frequency.dtype), of_amplitude.astype(amplitude.dtype)


snake_on_gpu.defvjp(_forward, _backward)
