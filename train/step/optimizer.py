"""AdamW with the inverse-root schedule of the Oobleck recipe."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from earvae_jax.train.config import OptimizerConfig, TrainConfig
from earvae_jax.train.step.schedules import learning_rate


def build_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformationExtraArgs:
    """Clipping, AdamW and the schedule; `steps` is the number of updates of the whole run.

    Its `update` takes the gradient's `norm` besides, which a step computes anyway.
    """
    transforms: list[optax.GradientTransformation] = [
        optax.scale_by_adam(b1=config.betas[0], b2=config.betas[1], eps=config.epsilon),
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(lambda step: learning_rate(step, config, steps)),
    ]
    if config.clip_norm is not None:
        transforms.insert(0, clip_by_norm(config.clip_norm))
    return optax.with_extra_args_support(optax.chain(*transforms))


def discriminator_schedule(config: TrainConfig) -> tuple[OptimizerConfig, int]:
    """What `build_optimizer` takes for the discriminator, whose updates begin at `start_step`."""
    assert config.adversarial is not None
    return config.adversarial.optimizer, max(config.steps - config.adversarial.start_step, 1)


def judge_rate(state: optax.OptState, config: TrainConfig) -> Float[Array, ""]:
    """The learning rate of the discriminator's next update, given its optimizer's state."""
    leaves = jax.tree.leaves(state, is_leaf=lambda leaf: isinstance(leaf, optax.ScaleByScheduleState))
    (schedule,) = (leaf for leaf in leaves if isinstance(leaf, optax.ScaleByScheduleState))
    return learning_rate(schedule.count, *discriminator_schedule(config))


def clip_by_norm(largest: float) -> optax.GradientTransformationExtraArgs:
    """`optax.clip_by_global_norm` for a caller that knows the norm: `update(..., norm=norm)`."""

    def update(
        updates: PyTree, state: optax.OptState, params: PyTree = None, *, norm: Array, **_: Any
    ) -> tuple[PyTree, optax.OptState]:
        del params
        return jax.tree.map(lambda x: jnp.where(norm < largest, x, x / norm * largest), updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
