"""What arrays are asked."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from earvae_jax.arrays import all_finite


@given(
    arrays(np.float32, array_shapes(max_dims=2, max_side=40), elements=st.floats(width=32)),
    st.booleans(),
)
@example(np.full((3, 2), 3e38, np.float32), True)
@example(np.zeros((0, 2), np.float32), False)
@example(np.array([[np.inf, -np.inf]], np.float32), False)
def test_finite_values_are_told_from_others(values, turned):
    values = values.T if turned else values
    assert all_finite(values) == bool(np.isfinite(values).all())
