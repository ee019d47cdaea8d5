"""The adversarial part of a step: losses and gradients of both sides, one resolution at a time."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from earvae_jax.train.config import AdversarialConfig
from earvae_jax.train.formulations.choice import in_one_call
from earvae_jax.train.losses import functions
from earvae_jax.train.losses.discriminator import Discriminator

Parameters = Any  # a pytree of arrays, as `nnx.split` and `nnx.as_pure` give it
Terms = dict[str, Float[Array, ""]]


def adversarial_gradients(
    discriminator: nnx.GraphDef[Discriminator],
    parameters: Parameters,
    audio: Float[Array, "B T C"],
    prediction: Float[Array, "B T C"],
    *,
    config: AdversarialConfig,
    dtype: jnp.dtype,
) -> tuple[Float[Array, "B T C"], Parameters, Terms]:
    """Judges recordings and their reconstructions once each and returns the gradients of both sides.

    The losses are means over resolutions, so the gradients of one resolution are taken before the next is
    judged. On a CPU this halves the memory of a step and saves a sixth of its time: fresh memory is slow.

    Args:
      discriminator, parameters: as `nnx.split` gives them.
      prediction: the reconstruction of `audio`.
      dtype: the type that convolutions compute in.

    Returns:
      The gradient of the generator's weighted terms at `prediction`, the gradient of the discriminator's
      loss at `parameters`, and `adversarial`, `feature_matching` and `discriminator` before their weights.
    """

    def resolutions(parameters):
        judges = nnx.merge(discriminator, parameters).discriminators
        structures, states = zip(*(nnx.split(judge) for judge in judges), strict=True)
        return [nnx.as_pure(state) for state in states], structures

    own, as_one, structures = jax.vjp(resolutions, parameters, has_aux=True)
    found = []
    for structure, of_one in zip(structures, own, strict=True):
        function = functools.partial(_one_resolution, structure, config=config, dtype=dtype)
        # XLA's own order would keep the feature maps of all resolutions.
        found.append(in_one_call(function)(of_one, audio, prediction))
    of_prediction, of_parameters, terms = zip(
        *jax.tree.map(lambda leaf: leaf / len(found), found), strict=True
    )
    total = functools.partial(jax.tree.map, lambda *values: sum(values))
    return total(*of_prediction), as_one(list(of_parameters))[0], total(*terms)


def weighted(terms: Terms, config: AdversarialConfig) -> Float[Array, ""]:
    """What the terms add to the generator's loss."""
    return config.weight * terms["adversarial"] + config.feature_matching_weight * terms["feature_matching"]


def _one_resolution(structure, parameters, audio, prediction, *, config, dtype):
    """The same as `adversarial_gradients` for a single resolution."""

    def judge(parameters, audio):
        judgement, features = nnx.merge(structure, parameters)(audio, dtype)
        return [judgement], [features]

    def of_generator(fake):
        terms = {
            "adversarial": _loss(config, "generator")(fake[0]),
            "feature_matching": functions.feature_matching_loss(real[1], fake[1]),
        }
        return weighted(terms, config), terms

    def of_discriminator(real, fake):
        return _loss(config, "discriminator")(real[0], fake[0])

    real, pull_from_real = jax.vjp(lambda parameters: judge(parameters, audio), parameters)
    fake, pull_from_fake = jax.vjp(judge, parameters, prediction)
    of_fake, terms = jax.grad(of_generator, has_aux=True)(fake)
    of_prediction = pull_from_fake(of_fake)[1]
    terms["discriminator"], (of_real, of_fake) = jax.value_and_grad(of_discriminator, (0, 1))(real, fake)
    of_parameters = jax.tree.map(jnp.add, pull_from_real(of_real)[0], pull_from_fake(of_fake)[0])
    return of_prediction, of_parameters, terms


def _loss(config: AdversarialConfig, side: str) -> Callable:
    return getattr(functions, f"{config.kind}_{side}_loss")
