"""diffusers' and stable-audio-tools' own classes load what is written for them, and give the same numbers."""

import json

import family
import jax
import numpy as np
import pytest
from places import FAMILY
from tolerances import FAMILY_OUTPUT

import earvae_jax
from earvae_jax import checkpoints
from earvae_jax.convert import to_torch
from earvae_jax.infer import Codec

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning"),
]

# Shapes of Stable Audio, ACE-Step and one of neither, of one channel; 64 latents' numbers are 4 here.
SHAPES = {
    "Stable Audio": {"downsampling_ratios": [2, 4, 4, 8, 8], "sampling_rate": 44_100},
    "ACE-Step": {"downsampling_ratios": [2, 4, 4, 6, 10], "sampling_rate": 48_000},
    "mono": {
        "downsampling_ratios": [3, 4],
        "channel_multiples": [1, 3],
        "audio_channels": 1,
        "sampling_rate": 8000,
    },
}


@pytest.fixture
def diffusers():
    return pytest.importorskip("diffusers", reason="diffusers is not installed")


@pytest.fixture
def exported(tmp_path):
    """A model in a layout."""

    def export(model, layout):
        checkpoints.save(tmp_path / "model.safetensors", model, overwrite=True)
        to_torch.export(tmp_path / "model.safetensors", tmp_path / layout, layout=layout, overwrite=True)
        return tmp_path / layout

    return export


def assert_same_numbers(model, encode, decode):
    """`encode` gives mean and deviation [1, D, N] of audio [1, C, T], and `decode` goes back.

    The audio is no whole number of latents: neither the classes nor the model pad it.
    """
    ratio = model.config.downsampling_ratio
    shape = 1, 5 * ratio + ratio // 3, model.config.io_channels
    audio = np.random.default_rng(0).standard_normal(shape, np.float32)
    with torch.no_grad():
        mean, std = encode(torch.tensor(audio.swapaxes(1, 2)))
        decoded = decode(mean)
    ours = jax.jit(model.encode)(audio)
    pairs = (ours.mean, mean), (ours.std, std), (jax.jit(model.decode)(mean.numpy().swapaxes(1, 2)), decoded)
    for actual, expected in pairs:
        expected = expected.numpy().swapaxes(1, 2)
        atol = FAMILY_OUTPUT * max(1, np.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def of_diffusers(net):
    def encode(audio):
        posterior = net.encode(audio).latent_dist
        return posterior.mean, posterior.std

    return encode, lambda latents: net.decode(latents).sample


@pytest.mark.parametrize("name", [name for name in FAMILY if name.startswith("diffusers")])
def test_diffusers_loads_what_is_written(diffusers, exported, name):
    """Strictly: with `strict=True`, and by the way that its users take, of which nothing may be left over."""
    model = family.model(name)
    folder = exported(model, "diffusers")
    theirs = diffusers.AutoencoderOobleck
    net, said = theirs.from_pretrained(folder, low_cpu_mem_usage=False, output_loading_info=True)
    assert not any(said.values()), said
    bare = theirs.from_config(json.loads((folder / "config.json").read_text()))
    from safetensors.torch import load_file

    bare.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"), strict=True)
    for each in (net.eval(), bare.eval()):
        assert_same_numbers(model, *of_diffusers(each))


@pytest.mark.parametrize("shape", SHAPES)
def test_what_diffusers_writes_is_loaded(diffusers, tmp_path, shape):
    """Of weights that leave nothing at its start, and whose twins differ."""
    torch.manual_seed(0)
    widths = {"encoder_hidden_size": 8, "decoder_channels": 6, "decoder_input_channels": 4}
    net = diffusers.AutoencoderOobleck(**{"channel_multiples": [1, 2, 2, 3, 4], **widths, **SHAPES[shape]})
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith((".alpha", ".beta", ".bias")):
                parameter.normal_(0, 0.2)
    net.eval().save_pretrained(tmp_path / "vae")
    model = earvae_jax.load(tmp_path / "vae")
    assert_same_numbers(model, *of_diffusers(net))
    latents = np.random.default_rng(0).standard_normal((1, 4, 20)).astype(np.float32)
    with torch.no_grad():
        expected = net.decode(torch.tensor(latents)).sample[0].T.numpy()
    atol = FAMILY_OUTPUT * max(1, np.abs(expected).max())
    decoded = Codec.load(tmp_path / "vae").decode(latents[0].T)
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", FAMILY)
def test_stable_audio_tools_loads_what_is_written(exported, name):
    theirs = pytest.importorskip(
        "stable_audio_tools.models.autoencoders",
        reason="stable-audio-tools is not installed",
        exc_type=ImportError,
    )
    from safetensors.torch import load_file

    model = family.model(name)
    folder = exported(model, "stable-audio-tools")
    net = theirs.create_autoencoder_from_config(json.loads((folder / "model_config.json").read_text()))
    net.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    net.eval()

    def encode(audio):
        mean, scale = net.encode(audio, return_info=True)[1]["pre_bottleneck_latents"].chunk(2, dim=1)
        return mean, torch.nn.functional.softplus(scale) + 1e-4

    assert_same_numbers(model, encode, net.decode)
