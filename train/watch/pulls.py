"""How strongly each term of a step pulls at the reconstruction: its gradient there."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from earvae_jax.train.config import TrainConfig
from earvae_jax.train.losses.adversarial import Parameters, adversarial_gradients
from earvae_jax.train.losses.objective import reconstruction_objective
from earvae_jax.train.step.step import Trainer

# (the discriminator's parameters, prediction, target) -> gradient
Pull = Callable[[Parameters | None, Float[Array, "B T C"], Float[Array, "B T C"]], Float[Array, "B T C"]]


class Pulls:
    """The gradients of all weighted terms at reconstructions, compiled once."""

    def __init__(self, trainer: Trainer):
        config = trainer.config
        self._of_objective = {term: jax.jit(_pull(config, term)) for term in config.objective.active}
        self._of_discriminator = (
            {} if config.adversarial is None else {name: jax.jit(_judged(trainer, name)) for name in _JUDGED}
        )

    def __call__(
        self,
        discriminator: Parameters | None,
        prediction: Float[np.ndarray, "I T C"],
        target: Float[np.ndarray, "I T C"],
        *,
        share: float | None,
    ) -> dict[str, Float[np.ndarray, "I T C"]]:
        """The gradient of each term at the prediction, by the term's name, one item at a time.

        `share` asks for the adversarial terms too, of the discriminator with these parameters, at this part
        of their weights; None leaves them out.
        """
        terms = self._of_objective | ({} if share is None else self._of_discriminator)
        pairs = [
            (jnp.asarray(made[None]), jnp.asarray(wanted[None]))
            for made, wanted in zip(prediction, target, strict=True)
        ]
        found = {
            name: np.concatenate([np.asarray(pull(discriminator, *pair)) for pair in pairs])
            for name, pull in terms.items()
        }
        return found | {name: np.float32(share or 0) * found[name] for name in _JUDGED if name in found}


def sizes(pulls: dict[str, Float[np.ndarray, "I T C"]]) -> dict[str, float]:
    """Root mean square of each gradient times the number of samples of an item.

    The losses are means over samples, so this does not depend on the length of a crop.
    """
    return {
        name: float(np.sqrt(np.mean(np.square(pull, dtype=np.float64))) * pull[0].size)
        for name, pull in pulls.items()
    }


_JUDGED = {"adversarial": "weight", "feature_matching": "feature_matching_weight"}


def _pull(config: TrainConfig, term: str) -> Pull:
    others: dict[str, Any] = dict.fromkeys(config.objective.active, 0.0) | {
        term: getattr(config.objective, term)
    }
    objective = dataclasses.replace(config.objective, **others)

    def gradient(discriminator, prediction, target):
        del discriminator

        def loss(audio):
            return reconstruction_objective(audio, target, sample_rate=config.sample_rate, config=objective)[
                0
            ]

        return jax.grad(loss)(prediction)

    return gradient


def _judged(trainer: Trainer, term: str) -> Pull:
    assert trainer.config.adversarial is not None
    weights: dict[str, Any] = dict.fromkeys(_JUDGED.values(), 0.0)
    weights[_JUDGED[term]] = getattr(trainer.config.adversarial, _JUDGED[term])
    config = dataclasses.replace(trainer.config.adversarial, **weights)

    def gradient(discriminator, prediction, target):
        return adversarial_gradients(
            trainer.judge,
            discriminator,
            target,
            prediction,
            config=config,
            dtype=jnp.dtype(trainer.config.compute_dtype),
        )[0]

    return gradient
