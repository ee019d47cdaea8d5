"""Weights of PyTorch given in place of a checkpoint are converted once, into the user's cache."""

import json
import os
import shutil

import family
import numpy as np
import pytest

import earvae_jax
from earvae_jax import checkpoints
from earvae_jax.convert import from_torch
from earvae_jax.errors import UserError
from earvae_jax.parameters import named_arrays

ACE = "diffusers_acestep_tiny"


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder of diffusers, and an empty cache."""
    monkeypatch.setenv("EARVAE_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "vae"
    shutil.copytree(family.folder(ACE), folder, copy_function=shutil.copyfile)
    return folder


@pytest.fixture
def conversions(monkeypatch):
    """The sources that were converted."""
    made = []
    convert = from_torch.convert
    monkeypatch.setattr(
        from_torch,
        "convert",
        lambda source, *rest, **options: (made.append(source), convert(source, *rest, **options)),
    )
    return made


def test_a_source_is_converted_once(source, conversions, tmp_path):
    for given in (source, source / "diffusion_pytorch_model.safetensors", str(source)):
        model = earvae_jax.load(given)
        assert model.config == family.model(ACE).config
        for name, array in named_arrays(family.model(ACE)).items():
            np.testing.assert_array_equal(named_arrays(model)[name], array)
    assert len(conversions) == 1
    assert len(list((tmp_path / "cache" / "models").iterdir())) == 1


def test_what_counts_is_the_content(source, conversions, tmp_path):
    earvae_jax.load(source)
    weights = source / "diffusion_pytorch_model.safetensors"
    status = weights.stat()
    os.utime(weights, ns=(0, status.st_mtime_ns + 1))
    shutil.copytree(source, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    for given in (source, tmp_path / "elsewhere"):
        earvae_jax.load(given)
    assert len(conversions) == 1
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)  # of the same size, and the date of before
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    earvae_jax.load(source)
    assert len(conversions) == 2
    values = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**values, "sampling_rate": 44_100}))
    assert earvae_jax.load(source).config.sample_rate == 44_100
    assert len(conversions) == 3


def test_commands_take_a_source(source, earvae, capsys):
    assert earvae("info", source)[0] == 0
    described = json.loads(capsys.readouterr().out)
    assert described["provenance"]["source_layout"] == "diffusers"
    assert described["config"]["std_offset"] == 1e-4


def test_what_does_not_convert_by_itself_says_how(source, tmp_path):
    (source / "config.json").write_text("{")
    with pytest.raises(UserError) as caught:
        earvae_jax.load(source)
    message = str(caught.value)
    assert "does not convert by itself" in message and "config.json" in message and "\n" not in message
    assert f"run earvae convert from-torch {source} DIR" in message


def test_a_checkpoint_is_never_converted(conversions, tmp_path):
    model = family.model(ACE)
    for name in ("model.safetensors", "folder", "run/model.safetensors"):
        checkpoints.save(tmp_path / name, model)
        earvae_jax.load(tmp_path / name.removesuffix("/model.safetensors"))
    assert not conversions
