"""Validation says what a model has gained over the transform of its rate."""

import numpy as np
import pytest
import small_training

from earvae_jax.signal.block_transforms import block_dct
from earvae_jax.train.step.step import Trainer
from earvae_jax.train.watch.validation import Validator, by_transform, mean_metrics

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
    config = small_training.config().model_config
    made = by_transform(judge.audio, config)
    kept, block = config.latent_dim, config.downsampling_ratio
    mid, side = min(kept - kept // 4, block), min(kept // 4, block)
    np.testing.assert_array_equal(made[0], block_dct(judge.audio[0], mid, side, block=block))
    assert set(judge.gains(judge.measure(made)).values()) == {0.0}


def test_what_is_nearer_gains_in_everything():
    judge = validator()
    near = judge.audio + 1e-4 * np.random.default_rng(1).standard_normal(judge.audio.shape).astype(np.float32)
    gains = judge.gains(mean_metrics(judge.audio, near, judge.sample_rate))
    assert len(gains) == 5 and all(gain > 0 for gain in gains.values())


def test_nothing_measured_gains_nothing():
    judge = validator()
    assert judge.gains(judge.measure(judge.audio * np.nan)) == {}
