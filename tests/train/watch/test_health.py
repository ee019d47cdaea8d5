"""Early warnings: what is measured of latents and side signal, and when a line is said."""

import dataclasses

import numpy as np
import pytest
import small_training

from earvae_jax.train.watch.health import Warnings, latent_measures, side_change


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_a_channel_below_its_noise_is_dead():
    mean = noise(3, 50, 8)
    mean[..., 2] = 5 + 0.01 * mean[..., 2]  # large but constant: it tells nothing
    found = latent_measures(mean, np.full_like(mean, 0.1))
    assert found["dead_latents"] == 1
    assert found["latent_std"] == pytest.approx(0.1)
    assert found["latent_rms"] == pytest.approx(np.sqrt(np.mean(mean**2)), rel=1e-5)


@pytest.mark.parametrize("gain", [0.25, 1.0, 3.0])
def test_the_change_of_the_side_is_in_decibels(gain):
    mid, side = noise(2, 400, seed=1), 0.3 * noise(2, 400, seed=2)
    before, after = (np.stack([mid + s, mid - s], axis=-1) for s in (side, gain * side))
    assert side_change(before, after) == pytest.approx(20 * np.log10(gain), abs=1e-3)


def test_mono_has_no_side():
    mono = np.repeat(noise(1, 100, 1), 2, axis=-1)
    assert side_change(mono, mono) is None


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ({"side_change_db": -7.0}, {"side_change_db": -1.0}),
        ({"side_change_db": 7.0}, {"side_change_db": 1.0}),
        ({"latent_rms": 40.0}, {"latent_rms": 1.0}),
        ({"latent_rms": 0.001}, {"latent_rms": 1.0}),
        ({"dead_latents": 3.0}, {"dead_latents": 0.0}),
        ({"discriminator": 0.01}, {"discriminator": 0.4}),
    ],
)
def test_a_warning_is_said_once_and_taken_back_once(bad, good):
    warnings = Warnings(small_training.config())
    assert not list(warnings.changes(good))
    (line,) = warnings.changes(bad)
    assert ":" in line and list(warnings.active.values()) == [line]
    assert not list(warnings.changes(bad)) and not list(warnings.changes({}))
    (line,) = warnings.changes(good)
    assert line.endswith("in order again") and not warnings.active


def test_the_hinge_has_its_own_scale():
    config = small_training.config()
    hinge = dataclasses.replace(config, adversarial=dataclasses.replace(config.adversarial, kind="hinge"))
    assert list(Warnings(hinge).changes({"discriminator": 0.15}))
    assert not list(Warnings(config).changes({"discriminator": 0.15}))
