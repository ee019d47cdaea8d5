"""The config of weights: read off the tensors, checked against a file, stated by flags, or known."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig

pytest.importorskip("torch")

from earvae_jax.convert import from_torch, keys, published, state_dict
from earvae_jax.convert.config_from_tensors import Stated, from_file, from_tensors

KNOWN = Stated(sample_rate=44_100, dim_heads=32, final_tanh=False)


def tensors(config):
    """What a file with a model of this config holds, in shapes."""
    return {
        key: np.broadcast_to(np.float32(0), tensor.shape)
        for key, tensor in keys.torch_tensors(config).items()
    }


def tiny(golden, name="tiny_44k"):
    return ModelConfig.from_json(golden / name / "config.json")


@st.composite
def configs(draw):
    levels = draw(st.integers(1, 3))
    latent_dim = draw(st.sampled_from([32, 64, 96]))
    channels = draw(st.sampled_from([1, 2]))
    ratio = st.lists(st.integers(2, 5), min_size=levels, max_size=levels)
    strides = draw(ratio)

    def half():
        return {
            "channels": draw(st.integers(1, 4)),
            "c_mults": draw(st.lists(st.integers(1, 4), min_size=levels, max_size=levels)),
            "strides": strides,
            "use_snake": draw(st.booleans()),
            "antialias_activation": draw(st.booleans()),
            "bias": draw(st.booleans()),
        }

    transformer = None
    if draw(st.booleans()):
        rotary = draw(st.booleans())
        position = draw(st.sampled_from([{}, {"use_sinusoidal_emb": True}, {"use_abs_pos_emb": True}]))
        feed_forward = {
            "mult": draw(st.integers(1, 4)),
            "no_bias": draw(st.booleans()),
            "glu": draw(st.booleans()),
        }
        if draw(st.booleans()):
            feed_forward |= {"use_conv": True, "conv_kernel_size": draw(st.sampled_from([1, 3, 5]))}
        transformer = {
            "depth": draw(st.integers(1, 3)),
            "config": {
                "dim_heads": draw(
                    st.sampled_from([d for d in (8, 32, 64) if latent_dim % d == 0 and (d > 8 or not rotary)])
                ),
                "rotary_pos_emb": rotary,
                "conformer": draw(st.booleans()),
                "remove_norms": draw(st.booleans()),
                "attn_kwargs": {"qk_norm": draw(st.sampled_from([None, "ln"]))},
                "ff_kwargs": feed_forward,
                **position,
            },
        }
    nearest = draw(st.booleans())
    return ModelConfig.from_dict(
        {
            "encoder": {"config": {**half(), "in_channels": channels, "latent_dim": 2 * latent_dim}},
            "decoder": {
                "config": {
                    **half(),
                    "out_channels": channels,
                    "latent_dim": latent_dim,
                    "use_nearest_upsample": nearest,
                    "final_tanh": draw(st.booleans()),
                }
            },
            "transformer": transformer,
            "latent_dim": latent_dim,
            "downsampling_ratio": int(np.prod(strides)),
            "io_channels": channels,
            "sample_rate": draw(st.integers(8_000, 96_000)),
        }
    )


@settings(max_examples=15, deadline=None)
@given(configs())
def test_tensors_tell_every_option_that_leaves_a_trace(config):
    dim_heads = config.transformer and config.transformer.dim_heads
    stated = Stated(config.sample_rate, dim_heads, config.decoder.final_tanh)
    assert from_tensors(tensors(config), stated) == config
    assert from_file(config, tensors(config)) == config


@pytest.mark.parametrize("halves", [("encoder",), ("decoder",), ("encoder", "decoder")])
def test_unequal_twins_tell_of_two_activations(golden, halves):
    config = tiny(golden)
    for half in halves:
        untied = dataclasses.replace(getattr(config, half), tied_activations=False)
        config = dataclasses.replace(config, **{half: untied})
    state = {
        key: np.full(array.shape, number, np.float32) if key.endswith((".alpha", ".beta")) else array
        for number, (key, array) in enumerate(tensors(config).items())
    }
    for half in {"encoder", "decoder"} - set(halves):
        for key in keys.torch_tensors(config):
            if key.startswith(half) and (twin := keys.twin_of(key)):
                state[twin] = state[key]
    assert from_tensors(state, KNOWN).encoder == config.encoder
    assert from_tensors(state, KNOWN).decoder == config.decoder
    # A config in the published form says nothing about it: the tensors decide.
    assert from_file(tiny(golden), state, KNOWN) == dataclasses.replace(config, sample_rate=44_100)


def test_what_leaves_no_trace_is_asked_for_at_once(golden):
    with pytest.raises(UserError) as caught:
        from_tensors(tensors(tiny(golden)))
    for flag in ("--sample-rate", "--dim-heads", "--final-tanh"):
        assert flag in str(caught.value)
    with pytest.raises(UserError) as caught:
        from_file(tiny(golden), tensors(tiny(golden)))
    assert "--sample-rate" in str(caught.value) and "--dim-heads" not in str(caught.value)
    without_rate = Stated(dim_heads=32, final_tanh=False, rate_needed=False)
    assert from_tensors(tensors(tiny(golden)), without_rate) == tiny(golden)


def test_rotary_frequencies_without_values_are_refused(golden):
    state = tensors(tiny(golden, "tiny_44k"))
    key = "transformers.rotary_pos_emb.inv_freq"
    state[key] = state[key][:0]
    with pytest.raises(UserError):
        from_tensors(state, Stated(44_100, final_tanh=False))


def test_head_width_is_told_where_only_one_fits(golden):
    for name in ("tiny_44k", "options_transformer"):
        config = tiny(golden, name)
        if name == "tiny_44k":  # 96 latent dims divide into heads of 32, 48 or 96; 48 dims are turned of 96
            transformer = dataclasses.replace(config.transformer, dim_heads=96)
            config = dataclasses.replace(
                config,
                latent_dim=96,
                transformer=transformer,
                encoder=dataclasses.replace(config.encoder, latent_dim=192),
                decoder=dataclasses.replace(config.decoder, latent_dim=96),
            )
        told = from_tensors(tensors(config), Stated(44_100, final_tanh=False))
        assert told.transformer.dim_heads == config.transformer.dim_heads


@pytest.mark.parametrize("name", ["ear_vae_44k", "ear_vae_v2_48k"])
def test_published_shapes_are_recognised(name):
    config = next(known for known in published.PUBLISHED if known.name == name).config
    assert from_tensors(tensors(config)) == config
    assert from_file(dataclasses.replace(config, sample_rate=None), tensors(config)) == config
    assert from_tensors(tensors(config), Stated(sample_rate=32_000)).sample_rate == 32_000


def test_tensors_decide_about_the_transformer(golden, caplog):
    with_it, without = tiny(golden), dataclasses.replace(tiny(golden), transformer=None)
    assert from_file(with_it, tensors(without), KNOWN).transformer is None
    assert "the weights have none" in caplog.text
    assert from_file(without, tensors(with_it), KNOWN).transformer == with_it.transformer
    assert "the weights do" in caplog.text
    with pytest.raises(UserError, match="--dim-heads"):
        from_file(without, tensors(with_it), Stated(44_100))


def test_a_config_that_contradicts_the_tensors_is_refused_by_option(golden):
    config = tiny(golden)
    wrong = dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, channels=16, strides=(4, 2, 4, 4, 8)),
        transformer=dataclasses.replace(config.transformer, depth=3),
    )
    with pytest.raises(UserError) as caught:
        from_file(wrong, tensors(config), KNOWN)
    message = str(caught.value)
    assert "contradicts" in message
    assert "encoder.channels is 16 in the config, 8 in the tensors" in message
    assert "encoder.strides is (4, 2, 4, 4, 8) in the config, (2, 4, 4, 4, 8) in the tensors" in message
    assert "transformer.depth is 3 in the config, 2 in the tensors" in message
    assert "decoder" not in message


def test_unit_length_queries_are_taken_from_the_config(golden):
    config = tiny(golden)
    attention = dataclasses.replace(config.transformer.attn_kwargs, qk_norm="l2")
    config = dataclasses.replace(
        config, sample_rate=44_100, transformer=dataclasses.replace(config.transformer, attn_kwargs=attention)
    )
    assert from_file(config, tensors(config)) == config


def test_published_files_are_known_by_their_hash(golden, monkeypatch):
    path = golden / "tiny_44k" / "weights.pyt"
    digest = state_dict.read(path).sha256
    config = ModelConfig.from_json(golden / "tiny_44k" / "config.json")
    config = ModelConfig.from_dict({**config.to_dict(), "sample_rate": 44_100})
    known = published.Published("tiny", digest)
    monkeypatch.setattr(published.Published, "config", config)
    monkeypatch.setattr(published, "PUBLISHED", (known,))
    read = from_torch.read(path)
    assert (read.published_name, read.config) == ("tiny", config)
