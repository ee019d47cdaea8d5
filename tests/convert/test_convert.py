"""Weights from PyTorch and back, strictly and bit for bit."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from places import GOLDEN_MODELS
from tolerances import GOLDEN_OUTPUT

from earvae_jax import checkpoints
from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig

torch = pytest.importorskip("torch")

from earvae_jax.convert import from_torch, to_torch  # noqa: E402
from earvae_jax.convert.config_from_tensors import Stated  # noqa: E402
from earvae_jax.convert.torch_port import model as torch_model  # noqa: E402


def assert_same_state(actual, expected):
    assert list(actual) == list(expected)
    for key, tensor in expected.items():
        assert actual[key].dtype == tensor.dtype and torch.equal(actual[key], tensor), key


@pytest.mark.parametrize("name", GOLDEN_MODELS)
@pytest.mark.parametrize("config", ["given", "told by the tensors"])
def test_round_trip_is_bit_exact(golden, tmp_path, name, config):
    folder = golden / name
    given = folder / "config.json" if config == "given" else None
    expected = dataclasses.replace(ModelConfig.from_json(folder / "config.json"), sample_rate=44_100)
    stated = Stated(44_100, expected.transformer and 32, expected.decoder.final_tanh)
    info = from_torch.convert(folder / "weights.pyt", tmp_path / "model", config=given, stated=stated)
    to_torch.export(tmp_path / "model", tmp_path / "back.pyt")
    assert_same_state(
        torch.load(tmp_path / "back.pyt", weights_only=True),
        torch.load(folder / "weights.pyt", weights_only=True),
    )
    assert info.config == expected
    assert info.provenance["source"] == "weights.pyt" and len(info.provenance["source_sha256"]) == 64


@pytest.mark.parametrize("name", GOLDEN_MODELS)
def test_converted_models_reproduce_the_recordings(golden, models, name):
    graph, state = nnx.split(models[name])
    encode = jax.jit(lambda state, audio: nnx.merge(graph, state).encode(audio))
    decode = jax.jit(lambda state, latents: nnx.merge(graph, state).decode(latents))
    recorded = np.load(golden / name / "golden.npz")
    for case in sorted({key.split("/")[0] for key in recorded.files}):

        def of(key, case=case):
            return recorded[f"{case}/{key}"].transpose(0, 2, 1)

        posterior = encode(state, of("audio"))
        for key, actual in {
            "mean": posterior.mean,
            "scale": posterior.scale,
            "decoded_mean": decode(state, of("mean")),
            "decoded_z": decode(state, of("z")),
        }.items():
            scale = max(1.0, np.abs(of(key)).max())
            np.testing.assert_allclose(actual / scale, of(key) / scale, rtol=0, atol=GOLDEN_OUTPUT)


def test_outputs_are_kept_unless_told_otherwise(golden, tmp_path):
    source = golden / "tiny_48k" / "weights.pyt"
    stated = Stated(48_000, final_tanh=False)
    from_torch.convert(source, tmp_path / "model", stated=stated)
    with pytest.raises(UserError, match="exists already"):
        from_torch.convert(source, tmp_path / "model", stated=stated)
    from_torch.convert(source, tmp_path / "model", stated=stated, overwrite=True)
    to_torch.export(tmp_path / "model", tmp_path / "w.pyt")
    with pytest.raises(UserError, match="exists already"):
        to_torch.export(tmp_path / "model", tmp_path / "w.pyt")
    to_torch.export(tmp_path / "model", tmp_path / "w.pyt", overwrite=True)
    with pytest.raises(UserError, match="is a folder"):
        to_torch.export(tmp_path / "model", tmp_path)
    shutil.copy(tmp_path / "w.pyt", tmp_path / "blocker")
    with pytest.raises(UserError, match="cannot be written"):
        to_torch.export(tmp_path / "model", tmp_path / "blocker" / "w.pyt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blocker", "model", "w.pyt"]


def test_published_code_loads_what_is_exported(golden, tmp_path):
    """The port stands for it: same keys, strict."""
    folder = golden / "options_transformer"
    from_torch.convert(
        folder / "weights.pyt", tmp_path / "m", config=folder / "config.json", stated=Stated(44_100)
    )
    model = checkpoints.load(tmp_path / "m")
    torch_model.build(model.config, to_torch.state_dict(model))
