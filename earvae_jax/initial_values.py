"""Random numbers that layers start from."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float


def uniform(rngs: nnx.Rngs, shape: tuple[int, ...], bound: float) -> Float[Array, "..."]:
    """Between ±bound, by the next key of `rngs`."""
    return _draw(rngs, shape, lambda random: random.uniform(-bound, bound, shape))


def normal(rngs: nnx.Rngs, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Of mean 0 and variance 1, by the next key of `rngs`."""
    return _draw(rngs, shape, lambda random: random.standard_normal(shape))


def _draw(
    rngs: nnx.Rngs, shape: tuple[int, ...], sample: Callable[[np.random.Generator], np.ndarray]
) -> Float[Array, "..."]:
    """In numpy: jax.random would compile a program for each shape, seconds even for a small model."""

    def values(key_data):
        return sample(np.random.default_rng(np.asarray(key_data))).astype(np.float32)

    key_data = jax.random.key_data(rngs.params())
    if isinstance(key_data, jax.core.Tracer):  # a model built under jit has the same numbers
        return jax.pure_callback(values, jax.ShapeDtypeStruct(shape, jnp.float32), key_data)
    return jnp.asarray(values(key_data))
