"""Training of a model small enough to compile in seconds."""

from typing import Any

import numpy as np
import small_models

from earvae_jax.model.config import TransformerConfig
from earvae_jax.train.config import TrainConfig

CROP = 1024


def config(*, strides: tuple[int, ...] = (8,), transformer: bool = False, **changes: Any) -> TrainConfig:
    """A config as its JSON has it; `changes` replace whole entries."""
    blocks = (
        {"latent_dim": 32, "transformer": TransformerConfig(depth=1, dim_heads=32)} if transformer else {}
    )
    values = {
        "model": small_models.config(strides, channels=2, **blocks).to_dict(),
        "steps": 8,
        "optimizer": {"learning_rate": 1e-3, "warmup": 0.0},
        "objective": {"n_ffts": [64], "phase_n_ffts": [64], "waveform": 1.0},
        "adversarial": {
            "start_step": 3,
            "discriminator": {"n_ffts": [64], "filters": 2, "dilations": [1]},
            "optimizer": {"learning_rate": 1e-3, "warmup": 0.0},
        },
        "data": {"crop_samples": CROP, "batch_size": 4, "validation_items": 2, "threads": 1},
        "log_every": 1,
        "validate_every": 100,
        "checkpoint_every": 2,
    }
    return TrainConfig.from_dict(values | changes)


def music(batch: int = 4, seed: int = 0) -> np.ndarray:
    """Tones in noise: every bin has energy, as the comparison of phases needs."""
    random = np.random.default_rng(seed)
    time = np.arange(CROP) / small_models.SAMPLE_RATE
    tones = [np.sin(2 * np.pi * random.uniform(50, 2000) * time + phase) for phase in random.uniform(0, 6, 6)]
    left, right = (sum(random.uniform(0, 0.1) * tone for tone in tones) for _ in range(2))
    audio = np.stack([left, right], axis=-1) * random.uniform(0.5, 1, (batch, 1, 1))
    return (audio + 0.02 * random.standard_normal(audio.shape)).astype(np.float32)
