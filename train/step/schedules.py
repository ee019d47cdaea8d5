"""How the learning rates and the weight of the adversarial terms change over a run."""

from collections.abc import Iterator

import jax.numpy as jnp
from jaxtyping import Array, Float

from earvae_jax.train.config import AdversarialConfig, OptimizerConfig, TrainConfig

_WARM = 0.99  # the warm-up is over when the rate has reached this part


def learning_rate(step: Array | int, config: OptimizerConfig, steps: int) -> Float[Array, ""]:
    """(1 − warmup^(n+1)) · base · (1 + n/decay_steps)^-½; it falls to 0 over the last `cooldown_steps`."""
    step = jnp.asarray(step, jnp.float32)
    rate = (1 - config.warmup ** (step + 1)) * config.learning_rate / jnp.sqrt(1 + step / config.decay_steps)
    if config.cooldown_steps:
        rate *= jnp.clip((steps - step) / config.cooldown_steps, 0, 1)
    return rate


def adversarial_share(step: Array | int, config: AdversarialConfig) -> Float[Array, ""]:
    """The part of their weights that the generator's adversarial terms have at a step.

    It is 0 while the discriminator trains alone, then rises to 1 over `ramp_steps`.
    """
    begun = jnp.maximum(jnp.asarray(step, jnp.float32) - config.start_step, 0)
    return jnp.clip((begun - config.alone_steps + 1) / max(config.ramp_steps, 1), 0, 1)


def milestones(config: TrainConfig) -> Iterator[tuple[int, dict[str, float]]]:
    """The steps at which a schedule turns, and all schedules there."""
    optimizers = {"learning_rate": (config.optimizer, 0)}
    adversarial = config.adversarial
    turns = {0, config.steps - 1}
    if adversarial is not None:
        optimizers["discriminator_learning_rate"] = (adversarial.optimizer, adversarial.start_step)
        alone = adversarial.start_step + adversarial.alone_steps
        turns |= {adversarial.start_step, alone, alone + adversarial.ramp_steps}
    for optimizer, start in optimizers.values():
        if optimizer.warmup:
            turns.add(start + round(jnp.log(1 - _WARM).item() / jnp.log(optimizer.warmup).item()))
        if optimizer.cooldown_steps:
            turns.add(config.steps - optimizer.cooldown_steps)
    for step in sorted(turn for turn in turns if 0 <= turn < config.steps):
        values = {
            name: float(learning_rate(step - start, optimizer, config.steps - start))
            for name, (optimizer, start) in optimizers.items()
            if step >= start
        }
        if adversarial is not None:
            values["adversarial_share"] = float(adversarial_share(step, adversarial))
        yield step, values
