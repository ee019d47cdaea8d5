"""Layers against torch and against their formulas, over strides, widths and lengths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import (
    ANGLE,
    CONVOLUTION,
    FOLDED_WEIGHT,
    GOLDEN_OUTPUT,
    SHORT_SIN_SQUARED,
    SIN_SQUARED,
    SIN_SQUARED_SLOPE,
)

from earvae_jax.model import layers
from earvae_jax.model.antialias import AntialiasedActivation
from earvae_jax.model.convolution import conv1d, conv1d_in_rows, conv_transpose1d, weight_norm
from earvae_jax.model.layers import Extent
from earvae_jax.model.snake import short_sin_squared, short_snake, sin_squared, sin_squared_in_kernels


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def in_torch(function, *arrays, **options):
    """Calls a torch function on [B, T, C] audio and [K, I, O] kernels, and brings the answer back."""
    torch = pytest.importorskip("torch")
    x, kernel, bias = (torch.from_numpy(array) for array in arrays)
    order = (1, 2, 0) if function == "conv_transpose1d" else (2, 1, 0)
    y = getattr(torch.nn.functional, function)(x.mT, kernel.permute(*order), bias, **options)
    return y.mT.numpy()


@pytest.mark.parametrize("axis", [1, 2])
def test_weight_norm_is_torchs(axis):
    torch = pytest.importorskip("torch")
    direction = noise(5, 3, 4)
    gain = noise(direction.shape[axis], seed=1)
    expected = torch._weight_norm(
        torch.from_numpy(direction).moveaxis(axis, 0).contiguous(), torch.from_numpy(gain)[:, None, None], 0
    )
    actual = np.moveaxis(np.asarray(weight_norm(gain, direction, axis=axis)), axis, 0)
    np.testing.assert_allclose(actual, expected.numpy(), rtol=FOLDED_WEIGHT)


@pytest.mark.parametrize(
    ("width", "stride", "dilation", "padding"),
    [(7, 1, 1, 3), (7, 1, 9, 27), (4, 2, 1, 1), (6, 3, 1, 2), (20, 10, 1, 5), (1, 1, 1, 0), (5, 3, 2, 1)],
)
def test_conv1d_is_torchs(width, stride, dilation, padding):
    arrays = noise(2, 61, 3), noise(width, 3, 4, seed=1), noise(4, seed=2)
    options = {"stride": stride, "dilation": dilation, "padding": padding}
    expected = in_torch("conv1d", *arrays, **options)
    np.testing.assert_allclose(conv1d(*arrays, **options), expected, atol=CONVOLUTION)


@pytest.mark.parametrize("dilation", [2, 3, 9])
@pytest.mark.parametrize("length", [1, 8, 54, 61])
def test_rows_give_the_dilated_convolution_and_its_gradients(length, dilation):
    arrays = noise(2, length, 3), noise(7, 3, 4, seed=1), noise(4, seed=2)
    options = {"dilation": dilation, "padding": 3 * dilation}
    (expected, pull), (found, pull_rows) = (
        jax.vjp(functools.partial(convolve, **options), *arrays) for convolve in (conv1d, conv1d_in_rows)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=CONVOLUTION)
    for ours, theirs in zip(pull_rows(jnp.cos(expected)), pull(jnp.cos(expected)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=CONVOLUTION * max(1, np.abs(theirs).max()))
    with pytest.raises(ValueError, match="does not keep the length"):
        conv1d_in_rows(*arrays, dilation=dilation, padding=2)


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 10), st.integers(1, 24), st.integers(1, 9), st.data())
def test_conv_transpose1d_is_torchs_for_any_stride_and_width(stride, width, length, data):
    whole = (length - 1) * stride + width
    padding = data.draw(st.integers(0, min(width, (whole - 1) // 2)))
    arrays = noise(2, length, 3), noise(width, 3, 4, seed=1), noise(4, seed=2)
    expected = in_torch("conv_transpose1d", *arrays, stride=stride, padding=padding)
    actual = conv_transpose1d(*arrays, stride=stride, padding=padding)
    assert actual.shape[1] == whole - 2 * padding
    np.testing.assert_allclose(actual, expected, atol=CONVOLUTION)


@settings(deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=64, max_size=64))
def test_sin_squared_in_kernels_is_as_accurate(values):
    x = np.asarray(values, np.float32)
    expected = np.sin(np.float64(x)) ** 2
    np.testing.assert_allclose(sin_squared_in_kernels(x), expected, rtol=0, atol=SIN_SQUARED)
    short = np.asarray(SHORT(x), np.float64)
    assert np.all(np.abs(short - expected) <= SHORT_SIN_SQUARED + ANGLE * np.abs(x))


SHORT = jax.jit(short_sin_squared)


@pytest.mark.parametrize("x", [np.nan, np.inf, -np.inf])
def test_short_sin_squared_of_no_number_is_none(x):
    assert np.isnan(SHORT(np.float32(x)))


def test_short_snake_is_the_exact_one_rounded():
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((1000, 8)) * 4, jnp.bfloat16)
    frequency, amplitude = (np.exp(random.standard_normal(8)).astype(np.float32) for _ in range(2))
    wide = np.asarray(x, np.float64)
    exact = wide + amplitude * np.sin(frequency * wide) ** 2
    apart = np.abs(np.asarray(short_snake(x, frequency, amplitude), np.float64) - exact)
    # Half a unit in the last of eight bits, and what the sine is off by before it is rounded.
    sine = SHORT_SIN_SQUARED + ANGLE * frequency * np.abs(wide)
    assert np.all(apart <= 2.0**-8 * (np.abs(exact) + amplitude * sine) + amplitude * sine)


VALUE_AND_SLOPE = jax.jit(jax.vmap(jax.value_and_grad(sin_squared)))


@settings(deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=64, max_size=64))
def test_sin_squared_is_accurate_with_its_derivative(values):
    x = np.asarray(values, np.float32)
    exact = np.float64(x)
    value, slope = VALUE_AND_SLOPE(x)
    np.testing.assert_allclose(value, np.sin(exact) ** 2, rtol=0, atol=SIN_SQUARED)
    np.testing.assert_allclose(slope, np.sin(2 * exact), rtol=0, atol=SIN_SQUARED_SLOPE)


def test_sin_squared_at_the_borders_of_its_reduction():
    turns = np.arange(-3000, 3001)
    near = np.float32(np.pi) * turns.astype(np.float32) / 2
    x = np.concatenate([np.nextafter(near, np.float32(side)) for side in (-np.inf, np.inf)] + [near])
    np.testing.assert_allclose(sin_squared(x), np.sin(np.float64(x)) ** 2, rtol=0, atol=SIN_SQUARED)
    assert sin_squared(jnp.float32(0)) == 0 and np.isnan(sin_squared(jnp.float32(np.nan)))
    assert np.all(np.asarray(sin_squared(x)) >= 0)


def test_snake_folds_to_the_same_function():
    snake = layers.SnakeBeta(3)
    snake.alpha.set_value(jnp.asarray(noise(3)))
    snake.beta.set_value(jnp.asarray(noise(3, seed=1)))
    x = noise(2, 50, 3, seed=2)
    alpha, beta = np.float64(snake.alpha[...]), np.float64(snake.beta[...])
    expected = x + np.sin(x * np.exp(alpha)) ** 2 / (np.exp(beta) + 1e-9)
    # Amplitudes up to e².
    np.testing.assert_allclose(snake(x), expected, rtol=0, atol=8 * SIN_SQUARED)
    snake.fold()
    snake.fold()
    np.testing.assert_allclose(snake(x), expected, rtol=0, atol=8 * SIN_SQUARED)


@pytest.mark.parametrize("build", [layers.downsampling_conv, layers.upsampling_conv])
@pytest.mark.parametrize("stride", [2, 3])
def test_folding_keeps_the_weight(build, stride):
    module = build(3, 4, stride, bias=True, rngs=nnx.Rngs(0))
    folded = layers.folded(module)
    np.testing.assert_allclose(folded.kernel, module.kernel, rtol=FOLDED_WEIGHT)
    assert not module.is_folded and folded.is_folded


def test_keep_lets_nothing_through_from_outside():
    x = np.full((3, 6, 2), np.nan, np.float32)
    spans = [(0, 6), (2, 4), (-3, 1)]
    for row, (start, stop) in zip(x, spans, strict=True):
        row[max(start, 0) : stop] = 1
    extent = Extent(*(jnp.asarray(side) for side in zip(*spans, strict=True)))
    kept = np.asarray(extent.keep(x))
    assert kept.sum() == 2 * (6 + 2 + 1) and np.isfinite(kept).all()


def test_replicate_repeats_the_ends_of_what_exists():
    x = np.arange(6, dtype=np.float32).reshape(1, 6, 1).repeat(3, 0)
    x[1, 4:] = np.nan
    extent = Extent(jnp.asarray([0, 2, -3]), jnp.asarray([6, 4, 9]))
    actual = np.asarray(extent.replicate(x))[..., 0]
    np.testing.assert_array_equal(actual, [[0, 1, 2, 3, 4, 5], [2, 2, 2, 3, 3, 3], [0, 1, 2, 3, 4, 5]])


@pytest.mark.parametrize("use_snake", [True, False])
@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_antialiased_activation_is_alias_free_torch(use_snake, length):
    torch = pytest.importorskip("torch")
    alias_free = pytest.importorskip("alias_free_torch")
    act = layers.activation(3, use_snake=use_snake)

    def theirs(x):
        return torch.from_numpy(np.array(act(x.mT.numpy()))).mT

    x = 3 * noise(2, length, 3)
    expected = alias_free.Activation1d(theirs)(torch.from_numpy(x).mT).mT
    np.testing.assert_allclose(AntialiasedActivation(act)(x), expected, rtol=0, atol=GOLDEN_OUTPUT)


def test_weights_out_of_range_are_folded_without_a_warning():
    """They show in the outputs, which are checked; a warning of numpy would name no file."""
    module = layers.downsampling_conv(3, 4, 2, bias=True, rngs=nnx.Rngs(0))
    module.direction.set_value(jnp.full_like(module.direction[...], 3e38))
    layers.folded(module)
    snake = layers.SnakeBeta(3)
    snake.alpha.set_value(jnp.full(3, 1e30, jnp.float32))
    snake.beta.set_value(jnp.full(3, 1e30, jnp.float32))
    snake.fold()
    assert np.all(np.isinf(snake.frequency)) and np.all(snake.amplitude == 0)
