"""`earvae parity` takes every layout that the family is published in, and compares with diffusers' class."""

import dataclasses
import importlib.util
import json
import re
import sys

import family
import pytest
from places import FAMILY

from earvae_jax import checkpoints

torch = pytest.importorskip("torch")

from weight_files import folded  # noqa: E402

from earvae_jax.convert import to_torch  # noqa: E402
from earvae_jax.convert.parity import compare as parity  # noqa: E402
from earvae_jax.convert.torch_port import model as torch_model  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")

ACE = "diffusers_acestep_tiny"
HAVE_DIFFUSERS = importlib.util.find_spec("diffusers") is not None
needs_diffusers = pytest.mark.skipif(not HAVE_DIFFUSERS, reason="diffusers is not installed")


@pytest.fixture
def proof(earvae, capsys, tmp_path):
    """Runs the command; gives the line about the reference and the JSON."""

    def run(source, *flags):
        output = tmp_path / "report.json"
        status, lines = earvae("parity", source, "--json", output, *flags)
        assert status == 0, "\n".join(lines)
        report = json.loads(output.read_text())
        assert report["passed"] and [row["name"] for row in report["rows"]][-1] == "reconstruction"
        return capsys.readouterr().out.splitlines()[0], report

    return run


def state():
    return to_torch.state_dict(family.model(ACE))


def assert_port(line):
    assert re.fullmatch(r"reference: the port in earvae-jax \S+, in torch \S+; JAX \S+", line), line


@pytest.mark.parametrize("name", FAMILY)
def test_folders_as_they_are_published(proof, name):
    line, report = proof(family.folder(name))
    assert_port(line)
    assert report["reference"] == "port" and report["reference_version"] in line
    assert "std" in {row["name"] for row in report["rows"]}


def test_a_file_of_lightning_and_one_of_comfyui(proof, tmp_path):
    raw = {f"autoencoder.{key}": tensor + 1 for key, tensor in state().items()}
    average = {f"autoencoder_ema.ema_model.{key}": tensor for key, tensor in state().items()}
    torch.save({"state_dict": {**raw, **average}, "epoch": 1}, tmp_path / "epoch=1.ckpt")
    assert_port(proof(tmp_path / "epoch=1.ckpt")[0])
    safetensors_torch = pytest.importorskip("safetensors.torch")
    halved = {key: tensor.bfloat16().contiguous() for key, tensor in state().items()}
    safetensors_torch.save_file(halved, tmp_path / "ace_1.5_vae.safetensors")
    assert_port(proof(tmp_path / "ace_1.5_vae.safetensors")[0])
    safetensors_torch.save_file(folded(state()), tmp_path / "folded.safetensors")
    assert_port(proof(tmp_path / "folded.safetensors")[0])


def test_checkpoints_of_this_project(proof, earvae, tmp_path):
    info = checkpoints.save(tmp_path / "orbax", family.model(ACE))
    checkpoints.save(tmp_path / "run" / "model.safetensors", family.model(ACE))
    for source in ("orbax", "run"):
        line, report = proof(tmp_path / source)
        assert_port(line)
        assert report["weights_sha256"] is None and report["fingerprint"] == info.fingerprint
    assert proof(family.folder(ACE))[1]["fingerprint"] == info.fingerprint
    status, lines = earvae("parity", tmp_path / "orbax", "--sample-rate", 44_100)
    assert status == 2 and "a checkpoint, which holds its config" in lines[-1]


@needs_diffusers
@pytest.mark.parametrize("name", [name for name in FAMILY if name.startswith("diffusers")])
def test_diffusers_loads_its_files_itself(proof, name):
    import diffusers

    line, report = proof(family.folder(name), "--reference", "diffusers")
    assert f"AutoencoderOobleck of diffusers {diffusers.__version__}, which loaded the file itself" in line
    assert report["reference"] == "diffusers" and report["reference_version"] == diffusers.__version__
    assert "std" in {row["name"] for row in report["rows"]}


@needs_diffusers
def test_diffusers_gets_other_files_in_its_layout(proof, tmp_path, caplog):
    checkpoint = tmp_path / "model.safetensors"
    checkpoints.save(checkpoint, family.model(ACE))
    to_torch.export(checkpoint, tmp_path / "sat", layout="stable-audio-tools")
    for source in (tmp_path / "sat", checkpoint):
        line, _ = proof(source, "--reference", "diffusers")
        assert "given the weights in its layout" in line
    # The class always adds 1e-4, which says nothing about a model that adds nothing.
    other = dataclasses.replace(family.model(ACE).config, std_offset=0.0)
    (tmp_path / "config.json").write_text(json.dumps(other.to_dict()))
    weights = family.folder(ACE) / "diffusion_pytorch_model.safetensors"
    line, report = proof(weights, "--reference", "diffusers", "--config", tmp_path / "config.json")
    assert "which loaded the file itself" in line
    assert "std" not in {row["name"] for row in report["rows"]}


@needs_diffusers
def test_a_model_that_diffusers_has_not(earvae):
    status, lines = earvae("parity", family.folder("yue2_tiny"), "--reference", "diffusers")
    assert status == 2
    assert "channels are not its latent_dim: leave out --reference" in lines[-1]


def test_without_diffusers_one_line_says_how_to_get_it(earvae, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    status, lines = earvae("parity", family.folder(ACE), "--reference", "diffusers")
    assert status == 2
    assert lines[-1].endswith("needs diffusers, which is not installed; run: pip install diffusers")


def test_another_offset_of_the_deviation_is_found():
    model = family.model(ACE)
    port = torch_model.build(dataclasses.replace(model.config, std_offset=0.0), state())
    report = parity.compare(model, port, parity.probe_signal(4 * 1920, 2))
    assert [row.name for row in report.rows if not row.passed] == ["std"]
