"""The study of gradients: terms add up to the objective, and bands to the whole."""

import jax
import numpy as np
import pytest
import small_training

from earvae_jax.train.losses.objective import reconstruction_objective
from earvae_jax.train.step.step import Trainer
from earvae_jax.train.studies import gradients
from earvae_jax.train.watch.pulls import Pulls

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_terms_add_up_to_the_gradient_of_the_objective():
    config = small_training.config(adversarial=None)
    random = np.random.default_rng(0)
    target = random.standard_normal((1, 2048, 2), np.float32)
    prediction = target + 0.1 * random.standard_normal(target.shape, np.float32)
    found = Pulls(Trainer(config))(None, prediction, target, share=None)
    rate = config.model_config.sample_rate
    whole = jax.grad(
        lambda x: reconstruction_objective(x, target, sample_rate=rate, config=config.objective)[0]
    )(prediction)
    together = sum(found.values())
    np.testing.assert_allclose(together, whole, rtol=0, atol=1e-5 * float(np.abs(whole).max()))
    assert gradients.table(found, rate).count("\n") == len(found) + 3


def test_bands_add_up():
    audio = np.random.default_rng(0).standard_normal((2, 65_536, 2))
    found = gradients.in_bands(audio, 44_100)
    assert sum(value**2 for value in found.values()) == pytest.approx(2 * np.mean(audio**2), rel=0.03)


def test_a_tone_stands_in_its_band():
    tone = 1e-9 * np.sin(2 * np.pi * 500 * np.arange(44_100) / 44_100)
    found = gradients.in_bands(np.stack([tone, -tone], axis=-1)[None], 44_100)
    assert max(found, key=found.get) == "side 200–1000"
    assert found["side 200–1000"] == pytest.approx(1e-9, rel=0.02)
