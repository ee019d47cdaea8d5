"""Training of a model small enough to compile in seconds."""

from typing import Any

import small_models

from earvae_jax.config import TransformerConfig
from earvae_jax.train.config import TrainConfig

CROP = 1024


def config(*, transformer: bool = False, **changes: Any) -> TrainConfig:
    """A config as its JSON has it; `changes` replace whole entries."""
    blocks = (
        {"latent_dim": 32, "transformer": TransformerConfig(depth=1, dim_heads=32)} if transformer else {}
    )
    values = {
        "model": small_models.config((2, 4), channels=2, **blocks).to_dict(),
        "steps": 8,
        "optimizer": {"learning_rate": 1e-3, "warmup": 0.0},
        "objective": {"n_ffts": [256, 64], "phase_n_ffts": [256], "waveform": 1.0},
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
