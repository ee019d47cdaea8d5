"""The recipe of a training run: frozen dataclasses, read strictly from JSON. Nothing here computes."""

from earvae_jax.train.config.objective import ObjectiveConfig
from earvae_jax.train.config.parts import AdversarialConfig, DataConfig, DiscriminatorConfig, OptimizerConfig
from earvae_jax.train.config.run import BUNDLED, TrainConfig, bundled_or_file

__all__ = [
    "BUNDLED",
    "AdversarialConfig",
    "DataConfig",
    "DiscriminatorConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "TrainConfig",
    "bundled_or_file",
]
