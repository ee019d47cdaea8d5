"""The adversarial losses, a resolution at a time, are those of the whole discriminator."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from earvae_jax.train import losses
from earvae_jax.train.config import AdversarialConfig, DiscriminatorConfig
from earvae_jax.train.losses import adversarial
from earvae_jax.train.losses.adversarial import adversarial_gradients
from earvae_jax.train.losses.discriminator import Discriminator

WEIGHTS = {"weight": 0.3, "feature_matching_weight": 2.0}


def discriminator(n_ffts):
    config = DiscriminatorConfig(n_ffts=n_ffts, filters=4, dilations=(2,))
    structure, parameters = nnx.split(Discriminator(config, 2, rngs=nnx.Rngs(0)))
    return structure, nnx.as_pure(parameters)


@pytest.mark.parametrize(
    ("kind", "on_gpu"),
    [("least_squares", False), pytest.param("hinge", False, marks=pytest.mark.slow), ("hinge", True)],
)
def test_terms_and_gradients_are_those_of_all_resolutions_together(monkeypatch, kind, on_gpu):
    # Of different loudness: else the gradients of both nearly cancel, and what is left is rounding.
    audio, prediction = jnp.array([[[[1]]], [[[0.1]]]]) * jax.random.normal(
        jax.random.key(1), (2, 2, 1500, 2)
    )
    structure, parameters = discriminator((256, 128, 64))
    config = AdversarialConfig(kind=kind, **WEIGHTS)

    def whole(parameters, prediction):
        module = nnx.merge(structure, parameters)
        (real, real_maps), (fake, fake_maps) = module(audio), module(prediction)
        terms = {
            "adversarial": getattr(losses, f"{kind}_generator_loss")(fake),
            "feature_matching": losses.feature_matching_loss(real_maps, fake_maps),
            "discriminator": getattr(losses, f"{kind}_discriminator_loss")(real, fake),
        }
        return terms, 0.3 * terms["adversarial"] + 2.0 * terms["feature_matching"]

    @jax.jit  # operation by operation it takes minutes to compile
    def wholly(parameters, prediction):
        of_prediction = jax.grad(lambda audio: whole(parameters, audio)[1])(prediction)
        of_parameters = jax.grad(lambda p: whole(p, prediction)[0]["discriminator"])(parameters)
        return of_prediction, of_parameters, whole(parameters, prediction)[0]

    expected = wholly(parameters, prediction)
    judge = functools.partial(nnx.merge, structure)
    gradients = functools.partial(adversarial_gradients, judge, config=config, dtype=jnp.float32)
    if on_gpu:
        monkeypatch.setattr(adversarial, "in_one_call", lambda _, *, on_gpu: on_gpu)
    found = jax.jit(gradients)(parameters, audio, prediction)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for ours, theirs in zip(found, expected, strict=True):
        # Rounding of a whole: of a direction's gradient most cancels where weight norm projects it.
        scale = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(theirs))
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5 * scale), ours, theirs)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other platforms order a program otherwise")
def test_memory_is_that_of_one_resolution():
    def needed(n_ffts):
        structure, parameters = discriminator(n_ffts)
        judge = functools.partial(nnx.merge, structure)
        function = functools.partial(
            adversarial_gradients, judge, config=AdversarialConfig(), dtype=jnp.float32
        )
        audio = jnp.zeros((2, 8000, 2))
        return jax.jit(function).lower(parameters, audio, audio).compile().memory_analysis()

    one, four = (needed((128,) * count).temp_size_in_bytes for count in (1, 4))
    assert four < 1.5 * one
