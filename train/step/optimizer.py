"""AdamW with the inverse-root schedule of the Oobleck recipe."""

import optax

from earvae_jax.train.config import OptimizerConfig
from earvae_jax.train.step.schedules import learning_rate


def build_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clipping, AdamW and the schedule; `steps` is the number of updates of the whole run."""
    transforms = [
        optax.scale_by_adam(b1=config.betas[0], b2=config.betas[1], eps=config.epsilon),
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(lambda step: learning_rate(step, config, steps)),
    ]
    if config.clip_norm is not None:
        transforms.insert(0, optax.clip_by_global_norm(config.clip_norm))
    return optax.chain(*transforms)
