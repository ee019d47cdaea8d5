"""Clipping by a norm that is known."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import strategies as st

from earvae_jax.train.step.optimizer import clip_by_norm

SHAPES = st.lists(st.sampled_from([(), (1,), (7,), (3, 5), (7, 4, 2), (2, 3, 1, 2)]), min_size=1, max_size=8)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(shapes=SHAPES, scale=st.sampled_from([1e-3, 1.0, 30.0]), seed=st.integers(0, 9))
def test_clips_as_optax_does(shapes, scale, seed):
    generator = np.random.default_rng(seed)
    tree = {
        str(i): jnp.asarray(scale * generator.standard_normal(s), jnp.float32) for i, s in enumerate(shapes)
    }
    ours, theirs = clip_by_norm(1.0), optax.clip_by_global_norm(1.0)
    state = ours.init(tree)
    assert state == theirs.init(tree)  # so that checkpoints of before load
    clipped, _ = ours.update(tree, state, norm=optax.tree.norm(tree))
    expected, _ = theirs.update(tree, state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), clipped, expected)
