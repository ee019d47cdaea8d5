"""A signal passes a network that starts with preserved variance; torch's initialisation drowns it."""

import json
from importlib import resources

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from earvae_jax.config import ModelConfig
from earvae_jax.train import initialization
from earvae_jax.vae import EarVAE

CONFIG = ModelConfig.from_dict(
    json.loads((resources.files("earvae_jax.configs") / "demo_44k.json").read_text())
)


@pytest.fixture
def audio():
    return jnp.asarray(0.2 * np.random.default_rng(0).standard_normal((1, 16_384, 2)), jnp.float32)


def strength(x) -> float:
    """Standard deviation over time, the mean over channels: biases do not count."""
    return float(jnp.mean(jnp.std(x, axis=1)))


def test_a_signal_passes(audio):
    model = EarVAE(CONFIG, rngs=nnx.Rngs(0))
    damped = strength(model.encode(audio).mean)
    initialization.preserve_variance(model)
    posterior = model.encode(audio)
    assert 0.2 < strength(posterior.mean) < 5
    assert strength(posterior.mean) > 5 * damped
    # The decoder hears the signal above the noise, and does not begin louder than music.
    assert strength(posterior.mean) > 2 * float(jnp.mean(posterior.std))
    assert strength(model.decode(posterior.mean)) < 1
