"""The declared receptive field is the one that the Jacobian shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from hypothesis import given
from hypothesis import strategies as st
from places import GOLDEN_MODELS

from earvae_jax.model.config import ModelConfig
from earvae_jax.receptive_field import (
    Reach,
    decoder_context,
    decoder_reach,
    encoder_context,
    encoder_reach,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

KINDS = {name: small_models.without_transformer(config) for name, config in small_models.KINDS.items()}


def seen(function, length: int, channels: int, kept: slice) -> np.ndarray:
    """Input positions that change any of the kept outputs.

    One pullback of random weights: a derivative that is zero for them is zero, barring chance.
    """
    x = 0.3 * jax.random.normal(jax.random.key(0), (1, length, channels))

    @jax.jit
    def gradient(x):
        y, pull = jax.vjp(function, x)
        weights = jnp.zeros_like(y).at[:, kept].set(jax.random.normal(jax.random.key(1), y[:, kept].shape))
        return pull(weights)[0]

    return np.flatnonzero(np.any(np.asarray(gradient(x))[0], axis=-1))


def measured_encoder_reach(model) -> Reach:
    ratio = model.config.downsampling_ratio
    context = encoder_context(model.config)
    n = context.left + 2
    positions = seen(
        model.encoder, (n + context.right + 3) * ratio, model.config.io_channels, slice(n, n + 1)
    )
    return Reach(n * ratio - positions[0], positions[-1] - n * ratio)


def measured_decoder_reach(model) -> Reach:
    ratio = model.config.downsampling_ratio
    context = decoder_context(model.config)
    n = context.left + 2
    kept = slice(n * ratio, (n + 1) * ratio)
    positions = seen(model.decoder, n + context.right + 3, model.config.latent_dim, kept)
    return Reach(n - positions[0], positions[-1] - n)


@pytest.mark.parametrize("kind", KINDS)
def test_declared_is_measured(kind):
    model = small_models.model(KINDS[kind])
    assert measured_encoder_reach(model) == encoder_reach(model.config.encoder)
    assert measured_decoder_reach(model) == decoder_reach(model.config.decoder)


@pytest.mark.parametrize("name", ["tiny_44k", "tiny_48k"])
def test_declared_is_measured_for_the_published_strides(golden, name):
    published = ModelConfig.from_json(golden / name / "config.json")
    model = small_models.model(small_models.config(published.encoder.strides, channels=2))
    assert measured_encoder_reach(model) == encoder_reach(published.encoder)
    assert measured_decoder_reach(model) == decoder_reach(published.decoder)


def test_published_numbers(golden):
    """As measured on the published code."""
    tiny = {name: ModelConfig.from_json(golden / name / "config.json") for name in GOLDEN_MODELS[:2]}
    assert encoder_reach(tiny["tiny_44k"].encoder) == (8293, 9316)
    assert encoder_reach(tiny["tiny_48k"].encoder) == (6143, 7102)
    assert decoder_reach(tiny["tiny_44k"].decoder) == (11, 11)
    assert decoder_reach(tiny["tiny_48k"].decoder) == (9, 9)


@given(st.lists(st.integers(2, 10), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_context_holds_the_reach(strides, nearest, antialiased):
    config = small_models.config(
        tuple(strides), use_nearest_upsample=nearest, antialias_activation=antialiased
    )
    context, reach, ratio = encoder_context(config), encoder_reach(config.encoder), config.downsampling_ratio
    # Kept latent n needs samples n·ratio − left … n·ratio + right of a window of whole latents.
    assert context.left * ratio >= reach.left > (context.left - 1) * ratio
    assert (context.right + 1) * ratio > reach.right >= context.right * ratio
