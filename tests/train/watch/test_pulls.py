"""How strongly the terms pull: they add up to the gradient that a step takes."""

import dataclasses

import numpy as np
import pytest
import small_training

from earvae_jax.train.losses.adversarial import adversarial_gradients
from earvae_jax.train.step.step import Trainer
from earvae_jax.train.watch.pulls import Pulls, sizes

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_judged_terms_add_up_to_the_adversarial_gradient():
    trainer = Trainer(small_training.config())
    state, target = trainer.initial_state(), small_training.music(2)
    prediction = target + 0.1 * np.random.default_rng(0).standard_normal(target.shape).astype(np.float32)
    found = Pulls(trainer)(state.discriminator, prediction, target, share=1.0)
    assert set(found) == {*trainer.config.objective.active, "adversarial", "feature_matching"}
    for item in range(2):
        whole, _, _ = adversarial_gradients(
            trainer.judge,
            state.discriminator,
            target[item][None],
            prediction[item][None],
            config=trainer.config.adversarial,
            dtype=np.float32,
        )
        together = found["adversarial"][item] + found["feature_matching"][item]
        np.testing.assert_allclose(together, whole[0], rtol=0, atol=1e-5 * float(np.abs(whole).max()))
    half = Pulls(trainer)(state.discriminator, prediction, target, share=0.5)
    for name, pull in found.items():  # the discriminator's terms alone have a share
        weight = 0.5 if name in ("adversarial", "feature_matching") else 1.0
        np.testing.assert_array_equal(half[name], np.float32(weight) * pull)
    assert "adversarial" not in Pulls(trainer)(None, prediction, target, share=None)


def test_sizes_follow_the_weight_and_not_the_length():
    config = small_training.config(adversarial=None)
    twice = dataclasses.replace(config, objective=dataclasses.replace(config.objective, waveform=2.0))
    target = small_training.music(1)
    prediction = 0.9 * target
    once, double = (
        sizes(Pulls(Trainer(each))(None, prediction, target, share=None))["waveform"]
        for each in (config, twice)
    )
    assert double == pytest.approx(2 * once, rel=1e-5)
    long = [np.concatenate([audio, audio], axis=1) for audio in (prediction, target)]
    assert sizes(Pulls(Trainer(config))(None, *long, share=None))["waveform"] == pytest.approx(once, rel=1e-4)
