"""The discriminator's convolution against XLA's own, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import PLANE_CONVOLUTION

from earvae_jax.train.plane_convolution import _directly, conv_planes

pytestmark = pytest.mark.usefixtures("quick_compilation")


def compare(shape, kernel_shape, dilation, slope):
    random = np.random.default_rng(0)
    shapes = shape, kernel_shape, kernel_shape[-1:]
    x, kernel, bias = (jnp.asarray(random.standard_normal(s), jnp.float32) for s in shapes)

    def outputs(function):
        y, transpose = jax.vjp(
            lambda *operands: function(*operands, dilation=dilation, slope=slope), x, kernel, bias
        )
        return y, *transpose(jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))

    for ours, expected in zip(jax.jit(lambda: outputs(conv_planes))(), outputs(_directly), strict=True):
        assert ours.shape == expected.shape
        largest = max(float(jnp.abs(expected).max()), 1.0)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=PLANE_CONVOLUTION * largest)


# A wide layer, the first, a narrow one, the last.
@pytest.mark.parametrize("sizes", [(3, 9, 16, 16), (3, 9, 4, 16), (3, 3, 16, 16), (3, 3, 16, 1)])
def test_layers_of_the_discriminator(sizes):
    compare((2, 11, 33, sizes[2]), sizes, 1, 1.0 if sizes[3] == 1 else 0.2)


@settings(max_examples=10, deadline=None)
@given(
    frames=st.integers(1, 9),
    bins=st.integers(1, 12),
    kernel=st.tuples(*[st.sampled_from([1, 3, 5])] * 2, *[st.sampled_from([1, 2, 40])] * 2),
    dilation=st.integers(1, 4),
    slope=st.sampled_from([0.01, 0.2, 1.0]),
)
def test_any_plane_and_kernel(frames, bins, kernel, dilation, slope):
    """Also planes smaller than the reach of the kernel."""
    compare((1, frames, bins, kernel[2]), kernel, dilation, slope)


def test_gradients_can_be_differentiated_again():
    random = np.random.default_rng(1)
    x, kernel = (jnp.asarray(random.standard_normal(s), jnp.float32) for s in ((1, 4, 12, 3), (3, 9, 3, 2)))

    def penalty(x, function):
        steepness = jax.grad(
            lambda x: jnp.sum(jnp.tanh(function(x, 0.1 * kernel, jnp.zeros(2), dilation=1, slope=0.2)))
        )(x)
        return jnp.sum(jnp.square(steepness))

    ours, expected = (jax.grad(penalty)(x, function) for function in (conv_planes, _directly))
    np.testing.assert_allclose(ours, expected, atol=PLANE_CONVOLUTION * float(jnp.abs(expected).max()))


def test_zeros_and_bfloat16_have_the_gradient_of_the_definition():
    x, kernel = jnp.zeros((1, 5, 7, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 4), jnp.bfloat16)

    def gradients(function):
        y, pull = jax.vjp(
            lambda *a: function(*a, dilation=1, slope=0.2), x, kernel, jnp.zeros(4, jnp.bfloat16)
        )
        return pull(jnp.ones_like(y))

    for ours, expected in zip(gradients(conv_planes), gradients(_directly), strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_array_equal(ours, expected)


def test_a_slope_that_hides_the_sign_is_refused():
    with pytest.raises(ValueError, match="slope must be above 0 and at most 1, not 0"):
        conv_planes(jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)), jnp.ones(1), slope=0)


def test_layers_stay_calls_in_the_program():
    """Inlined they are right too, but a step takes three times the memory for what it stores in between."""

    def loss(x, kernel, bias):
        for _ in range(2):
            x = conv_planes(x, kernel, bias, slope=0.2)
        return jnp.sum(jnp.sin(x))

    operands = map(jnp.ones, ((1, 6, 20, 4), (3, 9, 4, 4), (4,)))
    jax.config.update("jax_disable_most_optimizations", False)  # the program that users run
    try:
        compiled = jax.jit(jax.grad(loss, (1, 2))).lower(*operands).compile()
    finally:
        jax.config.update("jax_disable_most_optimizations", True)
    # Each layer's activation, its gradient and that of its parameters; the second's of its input.
    assert compiled.as_text().count(" call(") == 7
