"""Validation says what a model has gained over the transform of its rate."""

import numpy as np
import pytest
import small_training

from earvae_jax.signal.block_transforms import block_dct
from earvae_jax.train.step.step import Trainer
from earvae_jax.train.watch.validation import Validator, mean_metrics

pytestmark = pytest.mark.usefixtures("quick_compilation")


def validator() -> Validator:
    time = np.arange(8000) / 8000
    tones = np.sin(2 * np.pi * np.array([[110, 220], [165, 1300]])[:, None] * time[None, :, None])
    noise = 0.05 * np.random.default_rng(0).standard_normal(tones.shape)
    return Validator(
        Trainer(small_training.config(adversarial=None)), (0.3 * tones + noise).astype(np.float32)
    )


def test_the_transform_itself_gains_nothing():
    judge = validator()
    ratio, kept = judge._ratio, judge._latent_dim
    side = kept // 4
    options = {"mid": min(kept - side, ratio), "side": min(side, ratio), "block": ratio}
    made = np.stack([block_dct(crop, **options) for crop in judge.audio])
    assert set(judge.gains(judge.measure(made)).values()) == {0.0}


def test_what_is_nearer_gains_in_everything():
    judge = validator()
    near = judge.audio + 1e-4 * np.random.default_rng(1).standard_normal(judge.audio.shape).astype(np.float32)
    gains = judge.gains(mean_metrics(judge.audio, near, judge.sample_rate))
    assert len(gains) == 5 and all(gain > 0 for gain in gains.values())


def test_nothing_measured_gains_nothing():
    judge = validator()
    assert judge.gains(judge.measure(judge.audio * np.nan)) == {}
