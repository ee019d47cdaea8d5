"""AdamW with the inverse-root schedule of the Oobleck recipe."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from earvae_jax.train.config import OptimizerConfig


def learning_rate(step: Array | int, config: OptimizerConfig, steps: int) -> Float[Array, ""]:
    """(1 − warmup^(n+1)) · base · (1 + n/decay_steps)^-½; it falls to 0 over the last `cooldown_steps`."""
    step = jnp.asarray(step, jnp.float32)
    rate = (1 - config.warmup ** (step + 1)) * config.learning_rate / jnp.sqrt(1 + step / config.decay_steps)
    if config.cooldown_steps:
        rate *= jnp.clip((steps - step) / config.cooldown_steps, 0, 1)
    return rate


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
