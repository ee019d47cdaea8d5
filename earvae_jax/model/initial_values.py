"""The initial values of layers, made in numpy: JAX would compile a program for each shape."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float


def uniform(rngs: nnx.Rngs, shape: tuple[int, ...], bound: float) -> Float[Array, "..."]:
    """Uniform values in ±bound, from the next key of `rngs`."""
    return _draw(rngs, shape, lambda random: random.uniform(-bound, bound, shape))


def normal(rngs: nnx.Rngs, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Standard normal values, from the next key of `rngs`."""
    return _draw(rngs, shape, lambda random: random.standard_normal(shape))


def _draw(
    rngs: nnx.Rngs, shape: tuple[int, ...], sample: Callable[[np.random.Generator], np.ndarray]
) -> Float[Array, "..."]:
    def values(key_data):
        return sample(np.random.default_rng(np.asarray(key_data))).astype(np.float32)

    key_data = jax.random.key_data(rngs.params())
    if isinstance(key_data, jax.core.Tracer):  # a model built under jit has the same numbers
        return jax.pure_callback(values, jax.ShapeDtypeStruct(shape, jnp.float32), key_data)
    return constant(values(key_data))


def constant(values: Float[np.ndarray, "..."]) -> Float[Array, "..."]:
    """A JAX array of these values; `jnp.asarray` would compile a program to copy them."""
    return jax.device_put(values)


def norms(direction: Float[Array, "..."], *, axis: int) -> Float[Array, " G"]:
    """√Σ direction² over all axes but one: with these gains, weight norm returns `direction`."""
    others = tuple(i for i in range(direction.ndim) if i != axis)
    if isinstance(direction, jax.core.Tracer):
        return jnp.sqrt(jnp.sum(jnp.square(direction), axis=others))
    squares = np.square(np.asarray(direction), dtype=np.float64)
    return constant(np.sqrt(np.sum(squares, axis=others)).astype(np.float32))
