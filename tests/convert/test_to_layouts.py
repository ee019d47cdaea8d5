"""Models in the layouts of other projects: the way there and back changes no bit."""

import dataclasses
import json

import family
import numpy as np
import pytest
import safetensors.numpy
import small_models
from places import FAMILY

from earvae_jax import checkpoints
from earvae_jax.convert import from_torch, to_torch
from earvae_jax.errors import UserError
from earvae_jax.parameters import named_arrays

pytest.importorskip("torch")

ACE = "diffusers_acestep_tiny"


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a model as a checkpoint."""

    def write(model):
        checkpoints.save(tmp_path / "model.safetensors", model, overwrite=True)
        return tmp_path / "model.safetensors"

    return write


def assert_same_model(weights, model):
    assert weights.config == model.config
    expected = named_arrays(model)
    assert weights.arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(weights.arrays[name], array, err_msg=name)


@pytest.mark.parametrize("layout", ["stable-audio-tools", "diffusers"])
@pytest.mark.parametrize("name", FAMILY)
def test_there_and_back_changes_no_bit(tmp_path, checkpoint, name, layout):
    model = family.model(name)
    config = model.config
    if layout == "diffusers" and config.encoder.channels != config.encoder.latent_dim:
        with pytest.raises(UserError, match="channels are not its latent_dim: use --layout published"):
            to_torch.export(checkpoint(model), tmp_path / "out", layout=layout)
        return
    to_torch.export(checkpoint(model), tmp_path / "out", layout=layout)
    assert_same_model(from_torch.read(tmp_path / "out"), model)


def test_diffusers_files_come_back_as_they_were(tmp_path, checkpoint):
    to_torch.export(checkpoint(family.model(ACE)), tmp_path / "out", layout="diffusers")
    name = "diffusion_pytorch_model.safetensors"
    ours, theirs = (
        safetensors.numpy.load_file(place / name) for place in (tmp_path / "out", family.folder(ACE))
    )
    assert ours.keys() == theirs.keys()
    for key, array in theirs.items():
        assert ours[key].shape == array.shape
        np.testing.assert_array_equal(ours[key], array, err_msg=key)
    ours, theirs = (
        json.loads((place / "config.json").read_text()) for place in (tmp_path / "out", family.folder(ACE))
    )
    del theirs["_diffusers_version"]
    assert ours == theirs


def test_nearest_upsampling_goes_without_its_bias_if_that_is_zero(tmp_path, checkpoint):
    config = dataclasses.replace(small_models.KINDS["nearest"], std_offset=1e-4)
    model = small_models.model(config)
    with pytest.raises(UserError, match="a bias after nearest-neighbour upsampling"):
        to_torch.export(checkpoint(model), tmp_path / "out", layout="stable-audio-tools")
    for block in model.decoder.layers[1:3]:
        bias = block.layers[1].conv.bias
        bias.set_value(bias[...] * 0)
    to_torch.export(checkpoint(model), tmp_path / "out", layout="stable-audio-tools")
    assert_same_model(from_torch.read(tmp_path / "out"), model)


@pytest.mark.parametrize(
    ("kind", "layout", "said"),
    [
        ("transformer", "stable-audio-tools", "a transformer"),
        ("transformer", "diffusers", "a transformer"),
        ("odd strides", "diffusers", "ELU activations"),
        ("nearest", "diffusers", "nearest-neighbour upsampling, nor a final tanh"),
        ("antialiased", "diffusers", "antialiased activations"),
        ("antialiased nearest, odd, without bias", "stable-audio-tools", "convolutions without bias"),
    ],
)
def test_what_a_layout_cannot_hold_is_refused(tmp_path, checkpoint, kind, layout, said):
    path = checkpoint(small_models.model(small_models.KINDS[kind]))
    with pytest.raises(UserError) as caught:
        to_torch.export(path, tmp_path / "out", layout=layout)
    assert said in str(caught.value) and str(path) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_another_deviation_is_warned_of(tmp_path, checkpoint, caplog):
    model = small_models.model(small_models.KINDS["even strides"])
    to_torch.export(checkpoint(model), tmp_path / "out", layout="stable-audio-tools")
    assert "adds 0.0001 to the standard deviation and this model 0" in caplog.text


def test_a_folder_of_other_things_is_kept(tmp_path, checkpoint):
    path = checkpoint(family.model(ACE))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "song.txt").write_text("la")
    for options in ({}, {"overwrite": True}):
        with pytest.raises(UserError, match="holds other things"):
            to_torch.export(path, tmp_path / "out", layout="diffusers", **options)
    (tmp_path / "out" / "song.txt").unlink()
    with pytest.raises(UserError, match="exists already"):
        to_torch.export(path, tmp_path / "out", layout="diffusers")
    to_torch.export(path, tmp_path / "out", layout="diffusers", overwrite=True)
