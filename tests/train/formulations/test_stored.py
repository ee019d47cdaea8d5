"""Arrays that are stored once: the same values, and calls in the program that users run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earvae_jax.train.config import ObjectiveConfig
from earvae_jax.train.formulations.choice import gradient_stored
from earvae_jax.train.losses.objective import reconstruction_objective

CONFIG = ObjectiveConfig(n_ffts=(64,), phase_n_ffts=(64,))


def loss(x):
    return jnp.sum(jnp.sin(jnp.diff(gradient_stored(x**2))))


def plain_loss(x):
    return jnp.sum(jnp.sin(jnp.diff(x**2)))


@pytest.mark.parametrize("transform", [jax.grad, jax.hessian, lambda f: jax.vmap(jax.grad(f))])
def test_changes_no_derivative(transform):
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    ours, expected = (jax.jit(transform(function))(x) for function in (loss, plain_loss))
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the calls are made on a CPU alone")
def test_the_gradient_of_an_objective_is_stored_between_its_chains():
    """Inlined it is the same to the bit, but a step's losses took three times as long."""

    def objective(prediction, target):
        return reconstruction_objective(prediction, target, sample_rate=8000, config=CONFIG)[0]

    audio = jnp.ones((1, 512, 2))
    program = jax.jit(jax.grad(objective)).lower(audio, audio).compile().as_text()
    # Two channels of the magnitudes; phase and difference of instantaneous frequency and of group delay.
    assert program.count(" call(") >= 6
