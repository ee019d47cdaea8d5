"""The discriminator's convolutions against XLA's own, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from tolerances import PLANE_CONVOLUTION

from earvae_jax.train.formulations import planes, planes_on_gpu
from earvae_jax.train.formulations.choice import conv_stack
from earvae_jax.train.formulations.planes import PlaneLayer

_CHANCE = 1e-6  # so near to zero rounding decides on which side an activation is, and its gradient with it

pytestmark = pytest.mark.usefixtures("quick_compilation")


def compare(shape, kernel_shapes, dilations, slope):
    random = np.random.default_rng(0)

    def normal(*size):
        return jnp.asarray(random.standard_normal(size), jnp.float32)

    x = normal(*shape)
    # Sums of products of unit size in both directions: what is lost by rounding is small against 1.
    layers = tuple(
        PlaneLayer(normal(*size) / (size[0] * size[1] * max(size[2:])) ** 0.5, normal(size[3]))
        for size in kernel_shapes
    )

    def outputs(function):
        found, pull = jax.vjp(
            lambda *operands: function(*operands, dilations=dilations, slope=slope), x, layers
        )
        return found, pull([jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape) for y in found])

    by_definition = outputs(planes.conv_stack)
    if any(jnp.abs(y).min() < _CHANCE for y in by_definition[0][:-1]):
        reject()
    for function in (conv_stack, planes_on_gpu.conv_stack):
        compared = jax.tree.leaves(jax.jit(lambda f=function: outputs(f))()), jax.tree.leaves(by_definition)
        for ours, expected in zip(*compared, strict=True):
            assert ours.shape == expected.shape
            largest = max(float(jnp.abs(expected).max()), 1.0)
            np.testing.assert_allclose(ours, expected, rtol=0, atol=PLANE_CONVOLUTION * largest)


def test_the_layers_of_a_discriminator():
    """The first, wide ones, a narrow one, the last."""
    sizes = [(3, 9, 4, 16), (3, 9, 16, 16), (3, 9, 16, 16), (3, 3, 16, 16), (3, 3, 16, 1)]
    compare((2, 11, 33, 4), sizes, (1, 2, 4, 1, 1), 0.2)


@pytest.mark.parametrize("size", [(6, 3), (4, 6)])
def test_one_gradient_for_the_last_two_outputs(size):
    """XLA then has one array for both, and must not write over it what it reads at other places later."""
    random = np.random.default_rng(2)
    shapes = (1, *size, 1), (3, 3, 1, 2), (1, 1, 2, 1), (3, 3, 1, 1)
    x, *kernels = (jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in shapes)
    layers = [PlaneLayer(kernel, jnp.ones(kernel.shape[-1])) for kernel in kernels]

    def gradient(function, x):
        found, pull = jax.vjp(lambda x: function(x, layers, dilations=(1, 1, 1), slope=0.2), x)
        return pull([jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape) for y in found])[0]

    ours, expected = (jax.jit(functools.partial(gradient, f))(x) for f in (conv_stack, planes.conv_stack))
    np.testing.assert_allclose(
        ours, expected, rtol=0, atol=PLANE_CONVOLUTION * float(jnp.abs(expected).max())
    )


@settings(max_examples=10, deadline=None)
@given(
    frames=st.integers(1, 9),
    bins=st.integers(1, 12),
    widths=st.lists(st.tuples(*[st.sampled_from([1, 3, 5])] * 2), min_size=1, max_size=3),
    channels=st.lists(st.sampled_from([1, 2, 40]), min_size=4, max_size=4),
    dilation=st.integers(1, 4),
    slope=st.sampled_from([0.01, 0.2, 1.0]),
)
def test_any_plane_and_kernels(frames, bins, widths, channels, dilation, slope):
    """Also planes smaller than the reach of the kernels."""
    sizes = [(*width, *channels[i : i + 2]) for i, width in enumerate(widths)]
    compare((1, frames, bins, channels[0]), sizes, (dilation,) * len(sizes), slope)


def test_gradients_can_be_differentiated_again():
    random = np.random.default_rng(1)
    shapes = (1, 4, 12, 3), (3, 9, 3, 2), (3, 3, 2, 1)
    x, *kernels = (jnp.asarray(random.standard_normal(s), jnp.float32) for s in shapes)
    layers = tuple(PlaneLayer(0.1 * kernel, jnp.zeros(kernel.shape[-1])) for kernel in kernels)

    def penalty(x, function):
        steepness = jax.grad(
            lambda x: jnp.sum(jnp.tanh(function(x, layers, dilations=(1, 1), slope=0.2)[-1]))
        )(x)
        return jnp.sum(jnp.square(steepness))

    ours, expected = (jax.grad(penalty)(x, function) for function in (conv_stack, planes.conv_stack))
    np.testing.assert_allclose(ours, expected, atol=PLANE_CONVOLUTION * float(jnp.abs(expected).max()))


def test_zeros_and_bfloat16_have_the_gradient_of_the_definition():
    x, kernel = jnp.zeros((1, 5, 7, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 4), jnp.bfloat16)
    last = jnp.ones((1, 1, 4, 1), jnp.bfloat16)

    def gradients(function):
        layers = (
            PlaneLayer(kernel, jnp.zeros(4, jnp.bfloat16)),
            PlaneLayer(last, jnp.zeros(1, jnp.bfloat16)),
        )
        found, pull = jax.vjp(lambda *a: function(*a, dilations=(1, 1), slope=0.2), x, layers)
        return jax.tree.leaves(pull(jax.tree.map(jnp.ones_like, found)))

    for ours, expected in zip(gradients(conv_stack), gradients(planes.conv_stack), strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_array_equal(ours, expected)


def test_a_slope_that_hides_the_sign_is_refused():
    with pytest.raises(ValueError, match="slope must be above 0 and at most 1, not 0"):
        conv_stack(jnp.ones((1, 1, 1, 1)), (), dilations=(), slope=0)


def test_layers_stay_calls_in_the_program():
    """Inlined they are right too, but a step takes three times the memory for what it stores in between."""

    def loss(x, layers):
        return sum(jnp.sum(jnp.sin(y)) for y in conv_stack(x, layers, dilations=(1, 1), slope=0.2))

    layers = [PlaneLayer(jnp.ones((3, 9, 4, outputs)), jnp.ones(outputs)) for outputs in (4, 2)]
    operands = jnp.ones((1, 6, 20, 4)), layers
    jax.config.update("jax_disable_most_optimizations", False)  # the program that users run
    try:
        compiled = jax.jit(jax.grad(loss, 1)).lower(*operands).compile()
    finally:
        jax.config.update("jax_disable_most_optimizations", True)
    # Each layer, and for its kernel's gradient two orders, copies and the product; the second's of its input.
    assert compiled.as_text().count(" call(") == 11
