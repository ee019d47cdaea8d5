"""Model configs: the published JSON as it is, and every wrong one refused by name."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import GOLDEN_MODELS

from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.lengths import (
    downsampled_length,
    latents_for,
    latents_of,
    samples_of,
    upsampled_length,
)


@pytest.fixture
def published(golden):
    """The 44.1 kHz config as it is published, a nested dictionary to change."""
    return json.loads((golden / "tiny_44k" / "config.json").read_text())


def refusal(values) -> str:
    with pytest.raises(UserError) as caught:
        ModelConfig.from_dict(values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", GOLDEN_MODELS)
def test_published_json_is_read_as_it_is(golden, name):
    path = golden / name / "config.json"
    config, values = ModelConfig.from_json(path), json.loads(path.read_text())
    for half in ("encoder", "decoder"):
        for key, value in values[half]["config"].items():
            assert getattr(getattr(config, half), key) == (tuple(value) if isinstance(value, list) else value)
    assert (config.transformer is None) == (values.get("transformer") is None)
    assert config.sample_rate is None


@pytest.mark.parametrize("name", GOLDEN_MODELS)
def test_round_trip_through_json(golden, name):
    config = ModelConfig.from_json(golden / name / "config.json")
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_shipped_configs_are_the_published_sizes():
    from importlib.resources import files

    for name, ratio, rate in (("ear_vae_44k", 1024, 44_100), ("ear_vae_v2_48k", 960, 48_000)):
        config = ModelConfig.from_json(files("earvae_jax.configs") / f"{name}.json")
        assert (config.downsampling_ratio, config.sample_rate) == (ratio, rate)
        assert config.encoder.widths == config.decoder.widths == (128, 128, 256, 512, 1024, 2048)
        assert (config.transformer is None) == (ratio == 960)


def test_shipped_configs_of_other_projects():
    """Names, ratios and numbers of parameters as published (168.7 million for ACE-Step)."""
    import math
    from importlib.resources import files

    from earvae_jax.parameters import expected_arrays

    for name, ratio, rate in (
        ("stable_audio_open", 2048, 44_100),
        ("ace_step_1.5", 1920, 48_000),
        ("yue2", 1920, 48_000),
    ):
        config = ModelConfig.from_json(files("earvae_jax.configs") / f"{name}.json")
        assert (config.downsampling_ratio, config.sample_rate, config.std_offset) == (ratio, rate, 1e-4)
        assert not (config.encoder.tied_activations or config.decoder.tied_activations)
        if name == "ace_step_1.5":
            parameters = sum(math.prod(array.shape) for array in expected_arrays(config).values())
            assert round(parameters / 1e6, 1) == 168.7


def test_defaults_are_the_published_ones():
    config = ModelConfig.from_dict(
        {
            "encoder": {"config": {"latent_dim": 64}},
            "decoder": {"config": {}},
            "latent_dim": 32,
            "downsampling_ratio": 512,
        }
    )
    for half in (config.encoder, config.decoder):
        assert (half.channels, half.c_mults, half.strides) == (128, (1, 2, 4, 8), (2, 4, 8, 8))
        assert not half.use_snake and not half.antialias_activation and half.bias
    assert config.decoder.final_tanh and not config.decoder.use_nearest_upsample


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("encoder",),
        ("encoder", "config"),
        ("decoder", "config"),
        ("transformer",),
        ("transformer", "config"),
    ],
)
def test_unknown_keys_are_refused_by_name(published, path):
    inner = published
    for key in path:
        inner = inner[key]
    inner["chanels"] = 3
    assert "chanels" in refusal(published)


@pytest.mark.parametrize("option", ["attn_kwargs", "ff_kwargs", "norm_kwargs"])
def test_unknown_keys_of_transformer_options_are_refused_by_name(published, option):
    published["transformer"]["config"][option] = {"chanels": 3}
    assert "chanels" in refusal(published)


@pytest.mark.parametrize(
    "option", ["causal", "cross_attend", "cond_token_dim", "global_cond_dim", "natten_kernel_size"]
)
def test_unreachable_options_are_refused_by_name(published, option):
    for holder in ({option: 1}, {"attn_kwargs": {option: 1}}):
        changed = copy.deepcopy(published)
        changed["transformer"]["config"].update(holder)
        assert f"{option} is refused" in refusal(changed)
    # Asking for nothing is no request.
    published["transformer"]["config"].update({option: 0, "attn_kwargs": {option: None}})
    assert ModelConfig.from_dict(published).transformer.depth == 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.update(latent_dim="64"), "latent_dim"),
        (lambda c: c.update(io_channels=None), "io_channels"),
        (lambda c: c["encoder"]["config"].update(strides="2 4 4"), "strides"),
        (lambda c: c["encoder"]["config"].update(strides=[2, 4.5, 4, 4, 8]), "strides"),
        (lambda c: c["encoder"]["config"].update(strides={"a": 1, "value": 2}), "strides"),
        (lambda c: c["decoder"]["config"].update(use_snake="yes"), "use_snake"),
        (lambda c: c["transformer"].update(depth="two"), "depth"),
        (lambda c: c["transformer"].pop("depth"), "depth"),
        (lambda c: c.update(transformer=[1]), "transformer"),
        (lambda c: c["transformer"]["config"].update(attn_kwargs=[1]), "attn_kwargs"),
        (lambda c: c["transformer"]["config"].update(attn_kwargs="causal"), "attn_kwargs"),
        (lambda c: c.pop("encoder"), "encoder"),
        (lambda c: c.pop("latent_dim"), "latent_dim"),
    ],
)
def test_wrong_types_and_missing_keys_are_named(published, change, named):
    change(published)
    assert named in refusal(published)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.update(downsampling_ratio=512), "downsampling_ratio is 512"),
        (lambda c: c["encoder"]["config"].update(latent_dim=64), "encoder latent_dim is 64"),
        (lambda c: c["decoder"]["config"].update(latent_dim=32), "decoder latent_dim is 32"),
        (lambda c: c["decoder"]["config"].update(out_channels=1), "out_channels 1"),
        (lambda c: c["encoder"]["config"].update(c_mults=[1, 2]), "c_mults has 2 entries, strides 5"),
        (lambda c: c["encoder"]["config"].update(strides=[1, 8, 4, 4, 8]), "must all be above 1"),
        (lambda c: c["encoder"]["config"].update(channels=0), "must be positive"),
        (lambda c: c["transformer"].update(depth=0), "depth is 0"),
        (lambda c: c["transformer"]["config"].update(dim_heads=48), "not a multiple of dim_heads 48"),
        (lambda c: c["transformer"]["config"].update(dim_heads=16), "rotary_pos_emb needs 32"),
        (lambda c: c["transformer"]["config"].update(attn_kwargs={"qk_norm": "rms"}), "qk_norm is 'rms'"),
        (lambda c: c["transformer"]["config"].update(ff_kwargs={"mult": 0}), "mult is 0"),
        (
            lambda c: c["transformer"]["config"].update(ff_kwargs={"use_conv": True, "conv_kernel_size": 4}),
            "conv_kernel_size 4",
        ),
        (
            lambda c: c["transformer"]["config"].update(use_sinusoidal_emb=True, use_abs_pos_emb=True),
            "use_sinusoidal_emb and use_abs_pos_emb",
        ),
        (lambda c: c["decoder"]["config"].update({"a\nb": 1}), r"unknown key a\nb"),
        (lambda c: c["decoder"]["config"].update(bias="a\nb"), r"a\nb"),
        (lambda c: c.update(sample_rate=-1), "sample_rate is -1"),
        (lambda c: c.update(sample_rate=True), "sample_rate is True"),
        (
            lambda c: c.update(sample_rate=10**12),
            "sample_rate is 1000000000000, not a number from 1 to 1000000",
        ),
        (lambda c: c.update(latent_dim=10**9), "latent_dim is 1000000000, not a number from 1 to 65536"),
        (lambda c: c.update(latent_dim=10**400), "latent_dim is a number of 1329 bits"),
        (lambda c: c.update(io_channels=10**7), "io_channels is 10000000, not"),
        (lambda c: c["encoder"]["config"].update(channels=10**9), "the width of a level is"),
        (lambda c: c["decoder"]["config"].update(c_mults=[1, 2, 4, 8, 10**9]), "the width of a level is"),
        (
            lambda c: (
                [c[h]["config"].update(strides=[2] * 999, c_mults=[1] * 999) for h in ("encoder", "decoder")]
                and c.update(downsampling_ratio=2**999)
            ),
            "downsampling_ratio is a number of 1000 bits",
        ),
        (lambda c: c["transformer"].update(depth=10**7), "depth is 10000000, not a number from 1 to 1024"),
        (lambda c: c["transformer"]["config"].update(ff_kwargs={"mult": 60_000}), "the inner width is"),
        (
            lambda c: c["transformer"]["config"].update(abs_pos_emb_max_length=2**40),
            "abs_pos_emb_max_length is",
        ),
    ],
)
def test_contradictions_are_named(published, change, named):
    change(published)
    assert named in refusal(published)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"null", b'"text"', b"\xff\xfe\x00"])
def test_files_that_are_no_config_are_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json: ") as caught:
        ModelConfig.from_json(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such config file"):
        ModelConfig.from_json(tmp_path / "other.json")
    with pytest.raises(UserError, match="a folder, not a config file"):
        ModelConfig.from_json(tmp_path)


STRIDES = st.lists(st.integers(2, 10), min_size=1, max_size=5)


@given(STRIDES, st.integers(1, 3000))
def test_lengths_are_those_of_the_convolutions(strides, length):
    for stride in strides:
        padding, width = -(-stride // 2), 2 * stride
        assert downsampled_length(length, stride) == (length + 2 * padding - width) // stride + 1
        assert upsampled_length(length, stride) == (length - 1) * stride - 2 * padding + width
        if stride % 2 == 0:
            assert downsampled_length(length, stride) == length // stride
            assert upsampled_length(length, stride) == length * stride


@given(STRIDES, st.integers(1, 3000), st.booleans())
def test_fewest_latents_that_hold_a_file(strides, samples, nearest):
    latents = latents_for(samples, strides, nearest=nearest)
    assert samples_of(latents, strides, nearest=nearest) >= samples
    assert latents == 1 or samples_of(latents - 1, strides, nearest=nearest) < samples
    ratio = 1
    for stride in strides:
        ratio *= stride
    assert latents_of(latents * ratio, strides) == latents
