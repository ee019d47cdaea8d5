"""Exported StableHLO gives the codec's answers where this package is not, for any batch and length."""

import dataclasses
import json

import exports
import jax
import numpy as np
import pytest
import safetensors
import small_models
from tolerances import EXPORTED_STABLEHLO, TILED

from earvae_jax import checkpoints
from earvae_jax.convert import to_torch
from earvae_jax.convert.export import agreement, stablehlo
from earvae_jax.convert.export.folder import export
from earvae_jax.errors import UserError
from earvae_jax.model.config import FeedForwardConfig, TransformerConfig

pytestmark = pytest.mark.usefixtures("quick_compilation")

pytest.importorskip("flatbuffers")

TRANSFORMERS = {
    "learned positions, convolutions": TransformerConfig(
        1,
        32,
        use_abs_pos_emb=True,
        abs_pos_emb_max_length=1500,
        ff_kwargs=FeedForwardConfig(glu=False, use_conv=True),
    ),
    "sinusoids, conformer": TransformerConfig(1, 32, use_sinusoidal_emb=True, conformer=True),
}


@pytest.fixture
def checked_once(monkeypatch):
    """One size of the command's own check: here something else is looked at."""
    monkeypatch.setattr(agreement, "SIZES", ((1, 2),))


@pytest.fixture
def unchecked(monkeypatch):
    """Without the command's own check: what it would look at is looked at."""
    monkeypatch.setattr(agreement.Reference, "compared", lambda *_: agreement.Agreement(0.0, ()))


@pytest.mark.parametrize(
    "names",
    [("bundled", exports.FAMILY), pytest.param(("tiny_44k", "tiny_48k"), marks=pytest.mark.slow)],
    ids=" ".join,
)
def test_a_process_without_this_package_gives_the_codecs_answers(names, models, tmp_path, unchecked):
    cases = {name: exports.case(exports.model(name, models)) for name in names}
    for name, case in cases.items():
        checkpoints.save(tmp_path / f"{name}.safetensors", case.model)
        export(tmp_path / f"{name}.safetensors", tmp_path / name / "exported", platforms=("cpu",))
        case.lay(tmp_path / name, channels_first=False)
    folders = [tmp_path / name for name in cases]
    exports.run_without_this_package(exports.program("*.stablehlo"), folders, tmp_path)
    for name, case in cases.items():
        distances = case.distances(tmp_path / name, channels_first=False)
        assert max(distances.values()) <= EXPORTED_STABLEHLO, (name, distances)


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_the_transformer_takes_any_length(kind):
    """Two items of more latents than a block of attention, and no more than there are learned positions."""
    torch = pytest.importorskip("torch")
    from earvae_jax.convert.torch_port import model as torch_model

    model = small_models.model(small_models.config((2,), latent_dim=32, transformer=TRANSFORMERS[kind]))
    programs = stablehlo.Programs(model)
    serialized = programs.exported(("cpu",))["transformer"].serialize()
    run = stablehlo.runner({"transformer": serialized}, programs.weights)["transformer"]
    given = np.random.default_rng(0).standard_normal((2, 1500, 32), np.float32)
    port = torch_model.build(model.config, to_torch.state_dict(model)).double()
    with torch.no_grad():
        expected = port.transformers(torch.from_numpy(given).double()).numpy()
    np.testing.assert_allclose(np.asarray(run(given)), expected, rtol=0, atol=TILED * np.abs(expected).max())
    if model.config.transformer.use_abs_pos_emb:
        with pytest.raises(ValueError, match="shapes"):
            run(np.zeros((1, 1501, 32), np.float32))


def test_one_file_holds_all_platforms(small_checkpoint, tmp_path, checked_once):
    export(small_checkpoint, tmp_path / "out", platforms=("cpu", "cuda", "tpu"))
    for name in ("encoder", "decoder"):
        program = jax.export.deserialize(bytearray((tmp_path / "out" / f"{name}.stablehlo").read_bytes()))
        assert program.platforms == ("cpu", "cuda", "tpu")
        assert not program.disabled_safety_checks


def test_the_metadata_says_what_another_runtime_needs(tmp_path, checked_once):
    config = dataclasses.replace(small_models.KINDS["untied, odd strides"], sample_rate=44_100)
    provenance = {"source": "weights.pyt", "training_config": {"data": {"train": "/home/somebody/music"}}}
    model = small_models.model(config)
    info = checkpoints.save(tmp_path / "model.safetensors", model, provenance=provenance)
    export(tmp_path / "model.safetensors", tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert (facts["sample_rate"], facts["downsampling_ratio"], facts["std_offset"]) == (44_100, 10, 1e-4)
    assert facts["decoder"]["samples_fewer"] == 2
    assert facts["model"]["fingerprint"] == info.fingerprint
    assert facts["model"]["source"] == "weights.pyt"
    assert "somebody" not in json.dumps(facts)  # names only
    assert facts["stablehlo"]["platforms"] == ["cpu", "cuda", "tpu"]
    with safetensors.safe_open(tmp_path / "out" / "weights.safetensors", "numpy") as file:
        inside = json.loads(file.metadata()["earvae_jax_export"])
    assert inside == facts


@pytest.mark.parametrize("error", [1e-3, np.nan])
def test_what_does_not_agree_is_not_written(small_checkpoint, tmp_path, monkeypatch, error):
    monkeypatch.setattr(agreement, "SIZES", ((1, 2), (1, 3)))
    monkeypatch.setattr(stablehlo, "_decode", lambda model, latents: model.decoder(latents) + error)
    with pytest.raises(UserError, match="the exported decoder is"):
        export(small_checkpoint, tmp_path / "out")
    assert not list(tmp_path.iterdir())
