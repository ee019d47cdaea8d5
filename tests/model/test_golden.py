"""The bottleneck and the training forward pass against recordings of the published code.

Latents, audio and every layer are compared with the recordings where conversion and parity are tested.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from places import GOLDEN_MODELS
from tolerances import GOLDEN_OUTPUT

from earvae_jax.model.bottleneck import Posterior


def assert_recorded(actual, expected, name):
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual / scale, expected / scale, rtol=0, atol=GOLDEN_OUTPUT, err_msg=name)


@pytest.mark.parametrize("name", GOLDEN_MODELS)
def test_bottleneck(golden, name):
    recorded = np.load(golden / name / "golden.npz")
    for case in sorted({key.split("/")[0] for key in recorded.files}):
        mean, scale, noise, z = (
            recorded[f"{case}/{key}"].transpose(0, 2, 1) for key in ("mean", "scale", "noise", "z")
        )
        posterior = Posterior.from_encoder(jnp.concatenate([mean, scale], axis=-1))
        assert_recorded(posterior.mean + posterior.std * noise, z, f"{case}/z")
        assert_recorded(posterior.kl(), recorded[f"{case}/kl"], f"{case}/kl")


def test_an_offset_of_the_deviation_stands_in_for_the_floor_of_the_variance():
    """εar-VAE adds 1e-6 to the variance; the other Oobleck models add 1e-4 to the deviation, and nothing."""
    output = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 6)) - 6, jnp.float32)
    scale = np.float64(output[..., 3:])
    for offset, floor in ((0.0, 1e-6), (1e-4, 0.0)):
        posterior = Posterior.from_encoder(output, std_offset=offset)
        std = np.log1p(np.exp(scale)) + offset
        variance = std**2 + floor
        kl = np.mean(np.sum(np.float64(output[..., :3]) ** 2 + variance - np.log(variance) - 1, axis=-1))
        np.testing.assert_allclose(posterior.std, std, rtol=1e-6)
        np.testing.assert_allclose(jax.jit(Posterior.kl)(posterior), kl, rtol=1e-6)


def test_training_forward_is_encode_sample_decode():
    model = small_models.model(small_models.KINDS["even strides"])
    audio = np.random.default_rng(0).standard_normal((2, 64, 2), np.float32)
    key = jax.random.key(3)
    reconstruction, kl = jax.jit(lambda audio: model(audio, key=key))(audio)

    def in_steps(audio):
        posterior = model.encode(audio)
        noise = (posterior.sample(key) - posterior.mean) / posterior.std
        return model.decode(posterior.sample(key)), posterior.kl(), noise

    expected, expected_kl, noise = jax.jit(in_steps)(audio)
    np.testing.assert_allclose(reconstruction, expected, atol=GOLDEN_OUTPUT)
    np.testing.assert_allclose(kl, expected_kl, rtol=GOLDEN_OUTPUT)
    assert reconstruction.shape == audio.shape
    assert abs(noise.mean()) < 0.4 and 0.7 < noise.std() < 1.3
