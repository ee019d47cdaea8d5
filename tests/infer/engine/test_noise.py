"""The noise of sampled latents."""

import numpy as np
import pytest

from earvae_jax.errors import UserError
from earvae_jax.infer.engine.noise import standard_normal


def test_noise_does_not_depend_on_the_length():
    long = standard_normal(5000, 4, seed=7, name="song.flac")
    np.testing.assert_array_equal(standard_normal(1500, 4, seed=7, name="song.flac"), long[:1500])
    assert abs(long.mean()) < 0.03 and abs(long.std() - 1) < 0.03
    assert abs(np.mean(long[:1024] * long[1024:2048])) < 0.1


def test_noise_is_that_of_a_seed_and_a_name():
    noise = standard_normal(1500, 4, seed=7, name="song.flac")
    for other in ({"seed": 8, "name": "song.flac"}, {"seed": 7, "name": "other.flac"}):
        assert abs(np.mean(noise * standard_normal(1500, 4, **other))) < 0.1


def test_a_seed_that_jax_cannot_take_is_named():
    with pytest.raises(UserError, match=f"seed {2**63}: it has more than 64 bits"):
        standard_normal(3, 4, seed=2**63, name="song.flac")
