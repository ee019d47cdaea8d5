"""The model and the clip that come with the package."""

import numpy as np
import pytest

from earvae_jax import checkpoints, demo
from earvae_jax.audio.reader import read
from earvae_jax.parameters import named_arrays
from earvae_jax.signal.metrics import evaluate_pair

pytestmark = pytest.mark.usefixtures("quick_compilation")

bundled = pytest.mark.skipif(not demo.MODEL.exists(), reason="this version comes without a demo model")


@pytest.fixture(scope="module")
def info():
    return checkpoints.read_info()


@bundled
def test_the_model_is_small_and_of_the_same_architecture(info):
    model = checkpoints.load()
    assert sum(array.size for array in named_arrays(model).values()) <= 4e6
    assert demo.MODEL.stat().st_size <= 8e6
    config = info.config
    assert (config.sample_rate, config.latent_dim, config.downsampling_ratio) == (44_100, 64, 1024)
    assert config.transformer.depth == 2 and config.encoder.strides == (2, 4, 4, 4, 8)
    assert info.provenance["training_config"]["objective"]["correlation"] > 0
    assert info.fingerprint == checkpoints.load_with_info()[1].fingerprint


@bundled
def test_reconstruct_without_arguments_says_what_it_did(earvae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, lines = earvae("reconstruct")
    text = "\n".join(lines)
    assert status == 0, text
    assert "bundled clip" in text and "bundled demo model" in text
    assert "--checkpoint ear-vae-44k" in text  # where real quality comes from
    original, rate = read(demo.CLIP)
    result, result_rate = read(tmp_path / "results" / "demo_clip.wav")
    assert result.shape == original.shape and result_rate == rate == 44_100
    assert evaluate_pair(original, result, rate)["si_sdr"] > 3


def test_a_file_of_half_the_size_holds_rounded_weights(small_checkpoint, tmp_path):
    model = checkpoints.load(small_checkpoint)
    path = tmp_path / "half.safetensors"
    written = checkpoints.save(path, model, dtype="bfloat16")
    loaded, info = checkpoints.load_with_info(path)
    assert info.fingerprint == written.fingerprint != checkpoints.read_info(small_checkpoint).fingerprint
    for name, array in named_arrays(model).items():
        rounded = np.asarray(array.astype("bfloat16").astype(np.float32))
        np.testing.assert_array_equal(np.asarray(named_arrays(loaded)[name]), rounded)
    with pytest.raises(ValueError, match="safetensors"):
        checkpoints.save(tmp_path / "folder", model, dtype="bfloat16")
