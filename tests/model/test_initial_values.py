"""What layers start from: set by the key alone, also where a model is built under jit."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from earvae_jax.model import initial_values


def test_numbers_follow_the_key_and_differ_from_draw_to_draw():
    def draws(seed):
        rngs = nnx.Rngs(seed)
        one, two = (initial_values.uniform(rngs, (5, 7), 0.3) for _ in range(2))
        return one, two, initial_values.normal(rngs, (5, 7))

    first, again, other = draws(0), draws(0), draws(1)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.allclose(first[0], other[0]) and not np.allclose(first[0], first[1])
    assert {x.dtype for x in first} == {jnp.dtype("float32")}


def test_distributions():
    rngs = nnx.Rngs(0)
    flat = np.asarray(initial_values.uniform(rngs, (20_000,), 0.5))
    assert 0.49 < flat.max() <= 0.5 and -0.5 <= flat.min() < -0.49
    assert abs(flat.mean()) < 0.01 and abs(flat.std() - 0.5 / 3**0.5) < 0.01
    bell = np.asarray(initial_values.normal(rngs, (20_000,)))
    assert abs(bell.mean()) < 0.03 and abs(bell.std() - 1) < 0.03


def test_a_model_built_under_jit_is_the_same():
    def build():
        return initial_values.uniform(nnx.Rngs(3), (4, 2), 1.0)

    np.testing.assert_array_equal(jax.jit(build)(), build())
    assert jax.eval_shape(build).shape == (4, 2)
