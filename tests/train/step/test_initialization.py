"""A model that starts as a block transform passes the lowest bands on."""

import dataclasses
import json
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from flax import nnx
from scipy import signal

from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.vae import EarVAE
from earvae_jax.signal.block_transforms import block_dct
from earvae_jax.signal.metrics import si_sdr
from earvae_jax.train.step import initialization

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIG = ModelConfig.from_dict(
    json.loads((resources.files("earvae_jax.configs") / "demo_44k.json").read_text())
)


@pytest.fixture(scope="module")
def model() -> EarVAE:
    model = EarVAE(CONFIG, rngs=nnx.Rngs(0))
    initialization.start_as_transform(model)
    return model


def tone(frequency: float) -> jax.Array:
    time = np.arange(16_384) / CONFIG.sample_rate
    sine = np.sin(2 * np.pi * frequency * time[:, None] + np.array([0.0, 1.0]))
    return jnp.asarray(0.1 * sine, jnp.float32)[None]


def test_low_tones_pass_and_high_ones_do_not(model):
    reconstruct = jax.jit(lambda audio: model.decode(model.encode(audio).mean))
    # 64 latents for 1024 stereo samples: up to 1/32 of the band, 689 Hz.
    for frequency in (60, 200):
        assert si_sdr(*(np.asarray(x[0]) for x in (tone(frequency), reconstruct(tone(frequency))))) > 5
    high = tone(5000)
    assert si_sdr(*(np.asarray(x[0]) for x in (high, reconstruct(high)))) < -10


def test_latents_stand_above_their_noise(model):
    posterior = jax.jit(model.encode)(tone(200))
    assert 0.2 < float(jnp.std(posterior.mean)) < 5
    np.testing.assert_allclose(posterior.std, 0.005, rtol=0.1)


def test_the_start_loses_what_the_transform_loses(model):
    """On noise that falls by 6 dB an octave, as music does: above its band there is sound to add to."""
    noise = np.cumsum(np.random.default_rng(0).standard_normal((32_768, 2)), axis=0)
    slow = signal.sosfiltfilt(signal.butter(2, 40, fs=CONFIG.sample_rate, output="sos"), noise, axis=0)
    audio = np.float32(0.1 * (noise - slow) / np.std(noise - slow))
    audio[:, 1] = 0.8 * audio[:, 0] + 0.2 * audio[:, 1]
    made = jax.jit(lambda audio: model.decode(model.encode(audio).mean))(audio[None])
    ours, theirs = (si_sdr(audio, np.asarray(x)) for x in (made[0], block_dct(audio, 40, 24)))
    # The cascade passes the lowest eighth of the band, in blocks of its own, and the rest begins small.
    assert ours > theirs - 1


@pytest.mark.parametrize(
    ("strides", "latent_dim"), [((2, 4), 16), ((3, 2), 12), ((2,), 4)], ids=["even", "odd", "one"]
)
def test_a_transform_without_loss_is_perfect(strides, latent_dim, monkeypatch):
    """As many latents as samples, residual units and snakes switched off: what comes out is what went in."""
    monkeypatch.setattr(initialization, "_RESIDUAL_GAIN", 0.0)
    monkeypatch.setattr(initialization, "_SNAKE_BETA", 30.0)
    config = small_models.config(strides, channels=latent_dim, latent_dim=latent_dim)
    model = EarVAE(config, rngs=nnx.Rngs(0))
    initialization.start_as_transform(model)
    length = config.downsampling_ratio * 8
    audio = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, length, 2)), jnp.float32)
    output = jax.jit(lambda audio: model.decode(model.encode(audio).mean))(audio)
    np.testing.assert_allclose(output, audio[:, : output.shape[1]], atol=1e-5)


def test_models_that_cannot_be_a_transform_are_refused():
    config = small_models.config((2, 4))
    nearest = dataclasses.replace(
        config, decoder=dataclasses.replace(config.decoder, use_nearest_upsample=True)
    )
    with pytest.raises(UserError, match="block_transform"):
        initialization.start_as_transform(EarVAE(nearest, rngs=nnx.Rngs(0)))
