"""Files of other projects, as people have them: what is taken, and in which words the others are refused."""

import dataclasses
import json

import family
import numpy as np
import pytest
import small_models
from tolerances import FOLDED_WEIGHT

from earvae_jax import checkpoints
from earvae_jax.errors import UserError
from earvae_jax.parameters import build

torch = pytest.importorskip("torch")

import safetensors.torch  # noqa: E402
from weight_files import (  # noqa: E402
    ACE,
    assert_is_the_recorded_model,
    folded,
    parametrized,
    write,
)

from earvae_jax.convert import from_torch, to_torch  # noqa: E402
from earvae_jax.convert.config_from_tensors import Stated  # noqa: E402
from earvae_jax.convert.torch_port import model as torch_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

STATED = Stated(48_000, final_tanh=False)


@pytest.fixture(autouse=True)
def said(caplog):
    """What the conversion says, besides warnings."""
    with caplog.at_level("INFO", logger="absl"):
        yield caplog


@pytest.fixture
def published():
    """The tensors of the recorded model under the keys of stable-audio-tools, which are εar-VAE's."""
    return to_torch.state_dict(family.model(ACE))


@pytest.fixture
def theirs():
    """The tensors of the same model as diffusers wrote them."""
    return safetensors.torch.load_file(family.folder(ACE) / "diffusion_pytorch_model.safetensors")


def stable_audio_tools(scale=None, **changes):
    """The config of the recorded model in the form of stable-audio-tools, of a whole generator."""
    values = family.model(ACE).config.to_dict()
    mine = ("tied_activations",)
    for half in ("encoder", "decoder"):
        options = {key: value for key, value in values[half]["config"].items() if key not in mine}
        values[half] = {"type": "oobleck", "config": options, "requires_grad": False}
    autoencoder = {key: values[key] for key in ("encoder", "decoder", "latent_dim", "downsampling_ratio")}
    autoencoder |= {"io_channels": 2, "bottleneck": {"type": "vae"}, **changes}
    pretransform = {"type": "autoencoder", "config": autoencoder} | ({"scale": scale} if scale else {})
    return {
        "model_type": "diffusion_cond",
        "sample_rate": 48_000,
        "model": {"pretransform": pretransform, "diffusion": {}},
    }


def refusal(source, **options):
    with pytest.raises(UserError) as caught:
        from_torch.read(source, **options)
    message = str(caught.value)
    assert "\n" not in message and str(source) in message
    return message


def under(prefix, tensors, change=lambda tensor: tensor):
    return {prefix + key: change(tensor) for key, tensor in tensors.items()}


def test_a_folder_of_diffusers_its_pipeline_and_the_file_itself(tmp_path):
    link = tmp_path / "pipeline" / "vae"
    link.parent.mkdir()
    link.symlink_to(family.folder(ACE))
    (link.parent / "model_index.json").write_text("{}")
    (link.parent / "model.safetensors").write_bytes(b"a generator of gigabytes")
    for source in (link, link.parent, link / "diffusion_pytorch_model.safetensors"):
        assert_is_the_recorded_model(from_torch.read(source))


def test_diffusers_weights_need_no_config_where_the_strides_tell(tmp_path, theirs):
    weights = from_torch.read(write(tmp_path / "vae.safetensors", theirs))
    assert_is_the_recorded_model(weights)


def test_a_whole_model_of_stable_audio_tools(tmp_path, published, caplog):
    others = {"model.model.transformer.layers.0.pre_norm.gamma": torch.ones(3)}
    path = write(tmp_path / "model.safetensors", {**under("pretransform.model.", published), **others})
    (tmp_path / "model_config.json").write_text(json.dumps(stable_audio_tools(scale=1.5)))
    assert_is_the_recorded_model(from_torch.read(tmp_path))
    assert "a scale of 1.5" in caplog.text and "not applied" in caplog.text
    info = from_torch.convert(path, tmp_path / "out.safetensors")
    assert info.provenance["pretransform_scale"] == 1.5
    assert checkpoints.read_info(tmp_path / "out.safetensors").provenance == info.provenance


def test_a_training_checkpoint_gives_its_average(tmp_path, published, caplog):
    content = {
        **under("autoencoder.", published, lambda tensor: tensor + 1),
        **under("autoencoder_ema.ema_model.", published),
        "autoencoder_ema.step": torch.tensor(3),
        "discriminator.discriminators.0.weight": torch.ones(3),
    }
    path = write(tmp_path / "epoch=1-step=2.ckpt", {"state_dict": content, "epoch": 1})
    (tmp_path / "autoencoder.json").write_text(json.dumps(stable_audio_tools()["model"]["pretransform"]))
    assert_is_the_recorded_model(from_torch.read(path, stated=Stated(48_000)))
    assert "averaged weights under 'state_dict.autoencoder_ema.ema_model.'" in caplog.text
    assert "not those under 'state_dict.autoencoder.'" in caplog.text


@pytest.mark.parametrize("average", ["averaged_model.", "ema.", "averaged_model.module.", "model_ema."])
@pytest.mark.parametrize("raw", ["model.", "", "module."])
def test_raw_and_averaged_weights_side_by_side(tmp_path, theirs, published, raw, average):
    for tensors in (theirs, published):
        content = {**under(raw, tensors, lambda tensor: tensor + 1), **under(average, tensors)}
        path = write(tmp_path / "weights.ckpt", {**content, average + "n_averaged": torch.tensor(3)})
        if tensors is theirs:
            (path.parent / "config.json").write_bytes((family.folder(ACE) / "config.json").read_bytes())
        weights = from_torch.read(path)
        assert weights.file.prefix == average.replace("module.", "")
        del weights.file.tensors["encoder.layers.0.bias"]
        assert_is_the_recorded_model(weights)


@pytest.mark.parametrize("wrap", ["_orig_mod.{}", "module.{}", "encoder_", "vae.module._orig_mod.{}"])
def test_what_wrappers_add_to_keys_is_dropped(tmp_path, theirs, wrap):
    if wrap == "encoder_":  # inside the key
        content = {key.replace("coder.", "coder._orig_mod."): tensor for key, tensor in theirs.items()}
    else:
        content = {wrap.format(key): tensor for key, tensor in theirs.items()}
    assert_is_the_recorded_model(from_torch.read(write(tmp_path / "w.safetensors", content)))


def test_bfloat16_under_the_published_keys_without_a_config(tmp_path, published):
    """As ComfyUI's users have ACE-Step."""
    path = write(
        tmp_path / "ace_1.5_vae.safetensors", {key: tensor.bfloat16() for key, tensor in published.items()}
    )
    rounded = lambda array: torch.from_numpy(np.array(array)).bfloat16().float().numpy()  # noqa: E731
    assert_is_the_recorded_model(from_torch.read(path), rounded)


@pytest.mark.parametrize("keys", ["theirs", "published"])
def test_other_forms_of_weight_norm(tmp_path, request, keys):
    state = request.getfixturevalue(keys)
    assert_is_the_recorded_model(from_torch.read(write(tmp_path / "a.safetensors", parametrized(state))))
    weights = from_torch.read(write(tmp_path / "b.safetensors", folded(state)))
    theirs, ours = family.model(ACE), build(weights.config, weights.arrays)
    for kernel in (
        lambda model: model.encoder.layers[2].layers[0].layers[1].kernel,
        lambda model: model.decoder.layers[2].layers[2].layers[3].kernel,
        lambda model: model.decoder.layers[2].layers[1].kernel,
    ):
        np.testing.assert_allclose(kernel(ours), kernel(theirs), rtol=2 * FOLDED_WEIGHT, atol=0)


def test_nearest_upsampling_of_stable_audio_tools_has_no_bias(tmp_path):
    model = small_models.model(small_models.KINDS["nearest"])
    state = to_torch.state_dict(model)
    biases = [key for key in state if key.endswith(".conv.bias")]
    content = {
        key.replace(".layers.1.conv.", ".layers.1.1."): tensor
        for key, tensor in state.items()
        if key not in biases
    }
    path = write(tmp_path / "w.safetensors", under("pretransform.model.", content))
    read = from_torch.read(path, stated=Stated(8000, final_tanh=True))
    assert read.config.decoder.use_nearest_upsample and len(biases) == 2
    for key in biases:
        np.testing.assert_array_equal(read.file.tensors[key], np.zeros(state[key].shape))


def traced(state):
    port = torch_model.build(family.model(ACE).config, state)
    audio, noise = torch.zeros(1, 2, 2 * 1920), torch.zeros(1, 4, 2)
    return torch.jit.trace(port, (audio, noise), check_trace=False)


def test_torchscript_is_read_without_running_it(tmp_path, published, monkeypatch):
    torch.jit.save(traced(published), tmp_path / "vae_model.pt")
    monkeypatch.setattr(torch.jit, "load", None)
    assert_is_the_recorded_model(from_torch.read(tmp_path / "vae_model.pt"))


def test_a_weight_that_torchscript_keeps_beside_its_norm_is_left_out(tmp_path, published):
    port = torch_model.build(family.model(ACE).config, published)
    torch.nn.Module.register_buffer(port.encoder.layers[0], "kept", torch.ones(8, 2, 7))
    port.encoder.layers[0]._buffers["weight"] = port.encoder.layers[0]._buffers.pop("kept")
    zeros = torch.zeros(1, 2, 3840), torch.zeros(1, 4, 2)
    torch.jit.save(torch.jit.trace(port, zeros, check_trace=False), tmp_path / "vae_model.pt")
    assert "encoder.layers.0.weight" in torch.jit.load(tmp_path / "vae_model.pt").state_dict()
    assert_is_the_recorded_model(from_torch.read(tmp_path / "vae_model.pt"))


def test_torchscript_without_names_is_refused(tmp_path, published):
    torch.jit.save(torch.jit.freeze(traced(published).eval()), tmp_path / "vae_model.pt")
    assert "a TorchScript archive without named weights" in refusal(tmp_path / "vae_model.pt")


@pytest.mark.parametrize("damage", ["cut", "splice"])
def test_damaged_torchscript_is_refused(tmp_path, published, damage):
    path = tmp_path / "vae_model.pt"
    torch.jit.save(traced(published), path)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 3 : len(content) // 3 + 400] = bytes(400)
        path.write_bytes(content)
    assert "damaged" in refusal(path)


def test_of_several_averages_one_is_taken_and_the_others_are_named(tmp_path, published, said):
    worse = under("averaged_model.", published, lambda tensor: tensor + 1)
    worse |= under("model.", published, lambda tensor: tensor + 2)
    path = write(tmp_path / "w.ckpt", {**worse, **under("ema.", published)})
    assert_is_the_recorded_model(from_torch.read(path))
    assert "averaged weights under 'ema.', not those under 'averaged_model.', 'model.'" in said.text


def test_a_checkpoint_of_this_project_is_told_from_weights(tmp_path):
    checkpoints.save(tmp_path / "model.safetensors", family.model(ACE))
    assert "a checkpoint of this project already" in refusal(tmp_path / "model.safetensors")


def test_half_a_model_is_refused(tmp_path, theirs, published):
    for tensors in (theirs, published):
        for half, missing in (("decoder", "encoder"), ("encoder", "decoder")):
            part = {key: tensor for key, tensor in tensors.items() if key.startswith(half)}
            message = refusal(write(tmp_path / "half.safetensors", part))
            assert f"{half} alone" in message and f"its {missing} is missing" in message


def test_two_models_are_refused(tmp_path, theirs, published):
    for tensors in (theirs, published):
        other = under("b.", tensors, lambda tensor: tensor + 1)
        message = refusal(write(tmp_path / "two.safetensors", {**under("a.", tensors), **other}))
        assert "more than one model" in message and "'a.' and 'b.'" in message
    twice = {**published, **under("module.", published, lambda tensor: tensor + 1)}
    assert "two models" in refusal(write(tmp_path / "twice.safetensors", twice))
    same = {**under("a.", published), **under("b.", published)}
    assert_is_the_recorded_model(from_torch.read(write(tmp_path / "same.ckpt", same)))


def test_a_mixture_of_tied_and_untied_units_is_refused(tmp_path, published):
    for unit in ("encoder.layers.1.layers.0", "encoder.layers.2.layers.1"):
        for part in ("alpha", "beta"):
            published[f"{unit}.layers.2.{part}"] = published[f"{unit}.layers.0.{part}"].clone()
    message = refusal(write(tmp_path / "w.safetensors", published), stated=STATED)
    assert "the other 2 of 15 residual units have one activation for both" in message
    assert len(message) < 700


def test_a_json_of_something_else_is_not_taken(tmp_path, published):
    path = write(tmp_path / "w.safetensors", published)
    (tmp_path / "config.json").write_text('{"model_type": "t5", "d_model": 768}')
    assert_is_the_recorded_model(from_torch.read(path))  # the strides tell
    with pytest.raises(
        UserError, match=r"config.json: not the config of an Oobleck autoencoder but of model_type t5"
    ):
        from_torch.read(path, config=tmp_path / "config.json")


def test_a_json_of_another_model_is_refused(tmp_path, theirs):
    path = write(tmp_path / "w.safetensors", theirs)
    values = json.loads((family.folder(ACE) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "downsampling_ratios": [2, 4, 4, 8, 8]}))
    message = refusal(path)
    assert "config.json" in message and "contradicts" in message and "encoder.strides" in message
    (tmp_path / "config.json").write_text(json.dumps(values)[:-20])
    with pytest.raises(UserError, match=r"config.json: not a readable JSON"):
        from_torch.read(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bottleneck": {"type": "rvq"}}, "its bottleneck is of the type 'rvq', not 'vae'"),
        ({"encoder": {"type": "dac", "config": {}}}, "its encoder is of the type 'dac', not 'oobleck'"),
        ({"out_channels": 1}, "out_channels 1 is not io_channels 2"),
        ({"encoder": 3}, "encoder is not an object"),
        ({"latent_dim": None}, "latent_dim"),
    ],
)
def test_other_models_of_stable_audio_tools_are_named(tmp_path, published, changes, said):
    path = write(tmp_path / "w.safetensors", published)
    (tmp_path / "c.json").write_text(json.dumps(stable_audio_tools(**changes)))
    with pytest.raises(UserError) as caught:
        from_torch.read(path, config=tmp_path / "c.json")
    assert said in str(caught.value) and "c.json" in str(caught.value) and "\n" not in str(caught.value)


def test_soft_clip_is_a_tanh(tmp_path, published):
    path = write(tmp_path / "w.safetensors", published)
    values = stable_audio_tools()
    decoder = values["model"]["pretransform"]["config"]["decoder"]
    decoder["soft_clip"] = True
    (tmp_path / "w.json").write_text(json.dumps(values))
    assert from_torch.read(path).config.decoder.final_tanh
    decoder["config"]["final_tanh"] = True
    (tmp_path / "w.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="a tanh twice"):
        from_torch.read(path)


def test_a_missing_json_is_asked_for(tmp_path):
    config = small_models.KINDS["untied, odd strides"]
    state = to_torch.state_dict(small_models.model(config))
    path = write(tmp_path / "w.safetensors", state)
    message = refusal(path)
    assert "--sample-rate" in message and "--final-tanh" in message and "--config" in message
    read = from_torch.read(path, stated=Stated(8000, final_tanh=False))
    assert read.config == config  # the offset of the deviation is the family's
    read = from_torch.read(path, stated=Stated(8000, final_tanh=False, std_offset=0.0))
    assert read.config == dataclasses.replace(config, std_offset=0.0)


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (
            (
                "encoder.block.0.weight_g",
                "decoder.model.0.weight_g",
                "quantizer.quantizers.0.codebook.weight",
            ),
            "DAC",
        ),
        (
            (
                "encoder.layers.0.conv.weight_g",
                "decoder.layers.0.conv.weight_g",
                "quantizer.layers.0.codebook.e",
            ),
            "EnCodec",
        ),
        (("dcae.encoder.conv_in.weight", "vocoder.backbone.0.weight"), "ACE-Step 1.0"),
        (("encoder.conv_in.weight", "encoder.down_blocks.0.resnets.0.conv1.weight"), "image autoencoder"),
        (
            ("encoder.layers.0.layers.0.self_attn.to_qkv.weight", "decoder.layers.0.layers.0.weight"),
            "transformers",
        ),
        (("conv_pre.weight_g", "ups.0.0.weight_g"), "vocoder"),
        (("model.diffusion_model.transformer.layers.0.x",), "a generator without its autoencoder"),
    ],
)
def test_what_is_no_oobleck_is_named(tmp_path, keys, kind):
    message = refusal(write(tmp_path / "w.safetensors", {key: torch.zeros(3) for key in keys}))
    assert kind in message and "holds no εar-VAE weights" in message


def test_dac_of_transformers_is_not_taken_for_diffusers_oobleck(tmp_path, theirs):
    state = {key: tensor for key, tensor in theirs.items() if not key.endswith("beta")}
    path = write(
        tmp_path / "w.safetensors", {**state, "quantizer.quantizers.0.codebook.weight": torch.zeros(3)}
    )
    assert "Descript audio codec" in refusal(path)


def test_folders_with_no_or_several_weights_files(tmp_path, theirs):
    assert "a folder without a weights file" in refusal(tmp_path)
    one = write(tmp_path / "one.safetensors", theirs)
    write(tmp_path / "one.ckpt", {"not": "read"})
    assert_is_the_recorded_model(from_torch.read(tmp_path))
    write(tmp_path / "two.safetensors", theirs)
    assert "several weights files (one.safetensors, two.safetensors): name one" in refusal(tmp_path)
    one.rename(tmp_path / "my_vae.safetensors")
    (tmp_path / "one.ckpt").unlink()
    assert_is_the_recorded_model(from_torch.read(tmp_path))
    (tmp_path / "my_vae.safetensors.index.json").write_text("{}")
    assert "split over several files" in refusal(tmp_path)
