"""Losses on latents and on discriminators' outputs, by hand and by recording."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import LOSS_VALUE

from earvae_jax.train import losses


def test_kl_is_the_recorded_one(golden):
    recorded = np.load(golden / "tiny_44k" / "golden.npz")
    case = next(key.split("/")[0] for key in recorded if key.endswith("/kl"))
    mean, scale = (jnp.asarray(recorded[f"{case}/{x}"].swapaxes(1, 2)) for x in ("mean", "scale"))
    np.testing.assert_allclose(losses.kl_loss(mean, scale), recorded[f"{case}/kl"], rtol=LOSS_VALUE)


def test_adversarial_losses_by_hand():
    real = [jnp.asarray([[2.0, 0.5]]), jnp.asarray([[-1.0]])]
    fake = [jnp.asarray([[-2.0, 0.5]]), jnp.asarray([[0.0]])]
    assert losses.hinge_discriminator_loss(real, fake) == pytest.approx(((0.25 + 0.75) + (2 + 1)) / 2)
    assert losses.hinge_generator_loss(fake) == pytest.approx((0.75 + 0) / 2)
    assert losses.least_squares_discriminator_loss(real, fake) == pytest.approx(((0.625 + 2.125) + 4) / 2)
    assert losses.least_squares_generator_loss(fake) == pytest.approx((4.625 + 1) / 2)


def test_feature_matching_by_hand_and_without_gradient_to_the_real_features():
    real = [[jnp.asarray([1.0, 2.0]), jnp.asarray([0.0])], [jnp.asarray([4.0])]]
    fake = [[jnp.asarray([1.0, 1.0]), jnp.asarray([3.0])], [jnp.asarray([4.5])]]
    assert losses.feature_matching_loss(real, fake) == pytest.approx(((0.5 + 3) / 2 + 0.5) / 2)
    gradients = jax.tree.leaves(jax.grad(losses.feature_matching_loss)(real, fake))
    assert all(not g.any() for g in gradients)
    with pytest.raises(ValueError, match="zip"):
        losses.feature_matching_loss(real, fake[:1])
