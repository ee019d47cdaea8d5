"""The state of a training run."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import Array, Int

from earvae_jax.train.step.stacks import Parameters, Stacked, Stacks


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that changes while training; the noise of a step follows from the seed and `step`.

    Parameters stand in stacks; `Trainer.unstacked` gives them as trees.
    """

    step: Int[Array, ""]  # steps done, the skipped ones included
    skipped: Int[Array, ""]  # non-finite steps, all together
    skipped_in_a_row: Int[Array, ""]
    generator: Stacked
    constants: Parameters  # of the model: applied, not trained
    average: Stacked  # exponential moving average of the generator
    optimizer: optax.OptState
    discriminator: Stacked | None
    discriminator_optimizer: optax.OptState | None


def with_parameters(
    state: TrainState, change: Callable[[Stacks, Any], Any], generator: Stacks, discriminator: Stacks | None
) -> TrainState:
    """The state with `change` of all that holds parameters, averages or moments of either module."""
    of = {name: change(generator, getattr(state, name)) for name in ("generator", "average", "optimizer")}
    if discriminator is not None:
        for name in ("discriminator", "discriminator_optimizer"):
            of[name] = change(discriminator, getattr(state, name))
    return dataclasses.replace(state, **of)
