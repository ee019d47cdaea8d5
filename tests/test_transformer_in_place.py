"""The transformer that writes over its blocks computes what the differentiable one does."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from earvae_jax.config import TransformerConfig
from earvae_jax.transformer import Transformer


def test_in_place_is_the_same():
    transformer = Transformer(64, TransformerConfig(depth=2, dim_heads=32), rngs=nnx.Rngs(0))
    # The residual branches begin at zero: anything else would go unnoticed.
    noise = jax.tree.map(
        lambda a: a + 0.1 * jax.random.normal(jax.random.key(a.size), a.shape), nnx.state(transformer)
    )
    nnx.update(transformer, noise)
    x = jax.random.normal(jax.random.key(1), (1, 3000, 64))
    kept = 1500  # the last block holds none that exists
    length = jnp.array([kept])
    expected = transformer(x, length)[:, :kept]
    assert float(jnp.abs(expected - x[:, :kept]).max()) > 1
    np.testing.assert_array_equal(transformer(x, length, for_inference=True)[:, :kept], expected)
