"""The codec on arrays: lengths, rates, channels, sampling, and what it refuses."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tolerances import TILED
from whole_file import assert_close, codec_of, sizes_for, whole_file

from earvae_jax import checkpoints
from earvae_jax.audio.resampling import Resampler, resample, resampled_length
from earvae_jax.errors import UserError
from earvae_jax.infer import Codec
from earvae_jax.infer.engine import pipeline
from earvae_jax.infer.engine.engine import Engine
from earvae_jax.infer.engine.threads import prefetched

RATE = small_models.SAMPLE_RATE
KIND = "even strides"


def noise(samples, channels=2, seed=0):
    return np.random.default_rng(seed).standard_normal((samples, channels), np.float32)


@functools.cache
def codec() -> Codec:
    return codec_of(KIND)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 9000), st.integers(8000, 192_000), st.sampled_from([1, 2]))
def test_output_has_the_length_rate_and_channels_of_the_input(samples, rate, channels):
    audio = noise(samples, channels)
    latents = codec().encode(audio, sample_rate=rate)
    assert (latents.samples, latents.sample_rate, latents.channels) == (samples, rate, channels)
    assert codec().decode(latents).shape == (samples, channels)


@pytest.mark.parametrize("kind", ["odd strides", "nearest"])
@pytest.mark.parametrize("samples", [1, 17, 18, 19, 1000])
def test_every_kind_of_model_keeps_the_length(kind, samples):
    assert codec_of(kind).reconstruct(noise(samples)).shape == (samples, 2)


@pytest.mark.parametrize("samples", [1, 500, 9000])  # one window, and several
def test_what_comes_back_is_the_callers(samples):
    """No view of a device's memory, nor of what is returned next."""
    audio = noise(samples)
    first = codec().reconstruct(audio)
    kept = first.copy()
    assert first.flags.writeable
    first[...] = np.nan
    np.testing.assert_array_equal(codec().reconstruct(audio), kept)


def test_a_thread_reads_each_input_and_no_more(monkeypatch):
    """What is in memory needs none, unless it is resampled."""
    asked = []

    def noted(sources, depth, *, threads):
        asked.append(threads)
        return prefetched(sources, depth, threads=threads)

    monkeypatch.setattr(pipeline, "prefetched", noted)
    monkeypatch.setattr(Engine, "readers", 8)
    rate = 2 * codec().sample_rate
    codec().encode(noise(100), sample_rate=rate)
    assert len(codec().encode([noise(100)] * 3, sample_rate=rate)) == 3 and codec().encode([]) == []
    assert asked == [1, 3, 0]
    latents = codec().encode(noise(100))
    codec().decode([latents, latents])
    codec().reconstruct(noise(100))
    assert asked[3:] == [0, 0, 0]


@settings(deadline=None)
@given(
    st.integers(1, 5000),
    st.sampled_from(
        [(44_100, 48_000), (48_000, 44_100), (8000, 44_100), (192_000, 44_100), (11_025, 11_024)]
    ),
    st.integers(1, 3000),
)
@example(240, (48_000, 44_100), 1)  # 220½ samples
@example(80, (48_000, 44_100), 7)  # 73½
def test_resampled_blocks_have_the_length_of_the_formula(samples, rates, block):
    audio = noise(samples, 1)
    whole = resample(audio, *rates)
    assert len(whole) == resampled_length(samples, *rates)
    stream = Resampler(*rates, 1)
    parts = [stream(audio[start : start + block]) for start in range(0, samples, block)]
    parts.append(stream(audio[:0], last=True))
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("kind", ["odd strides", "untied, odd strides", "nearest"])
@pytest.mark.parametrize("latents", [1, 9, 150])
def test_an_array_decodes_to_what_the_model_makes_of_it(kind, latents):
    """Where a stride is odd, that is a few samples less than N·ratio."""
    values = noise(latents, 4)
    assert_close(codec_of(kind).decode(values), whole_file(kind)[1](values))


def test_reconstruct_is_decode_of_encode():
    audio = noise(3001)
    for options in ({}, {"sample_rate": 11_025}):
        expected = codec().decode(codec().encode(audio, **options))
        np.testing.assert_array_equal(codec().reconstruct(audio, **options), expected)


def test_plain_latents_decode_to_whole_latents():
    mean = noise(30, 4)
    decoded = codec().decode(mean)
    assert decoded.shape == (30 * codec().config.downsampling_ratio, 2)
    model = small_models.model(small_models.KINDS[KIND])
    expected = np.asarray(jax.jit(model.decode)(jnp.asarray(mean[None])))[0]
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=TILED * np.abs(expected).max())


def test_mono_is_both_channels_and_comes_back_as_their_mean():
    mono = noise(700, 1)
    expected = codec().reconstruct(np.repeat(mono, 2, axis=1)).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(codec().reconstruct(mono), expected, rtol=0, atol=1e-6)


def test_samples_depend_on_seed_name_and_latent_alone():
    kind = "transformer"
    config = small_models.KINDS[kind]
    short, long = sizes_for(config)
    audio = noise(5 * long * config.downsampling_ratio // 2)

    def sampled(codec, **options):
        return codec.reconstruct(audio, latent="sample", **{"seed": 3, "name": "a.wav", **options})

    first = sampled(codec_of(kind))
    atol = TILED * np.abs(first).max()
    np.testing.assert_array_equal(sampled(codec_of(kind)), first)
    model = small_models.model(config)
    other_windows = Codec(model, window_sizes=(short,), batch_size=3)
    np.testing.assert_allclose(sampled(other_windows), first, rtol=0, atol=atol)
    for other in ({"seed": 4}, {"name": "b.wav"}, {"latent": "mean"}):
        different = codec_of(kind).reconstruct(
            audio, **{"latent": "sample", "seed": 3, "name": "a.wav", **other}
        )
        assert np.abs(different - first).max() > 100 * atol


def refusal(function, *arguments, **options):
    with pytest.raises(UserError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_refused():
    nan = noise(100)
    nan[3, 1] = np.nan
    assert "no samples" in refusal(codec().encode, noise(0))
    assert "expected [samples, channels]" in refusal(codec().encode, noise(10)[None])
    assert "1 NaN" in refusal(codec().encode, nan)
    assert "6 channels" in refusal(codec().encode, noise(100, 6))
    assert "expected [latents, 4]" in refusal(codec().decode, noise(0, 4))
    assert "its latents have 5 values" in refusal(codec().decode, noise(10, 5))
    model = small_models.model(dataclasses.replace(small_models.KINDS[KIND], sample_rate=None))
    assert "sample rate" in refusal(Codec, model)
    assert "dtype 'float8'" in refusal(Codec, model, sample_rate=RATE, dtype="float8")


def test_latents_of_another_model_are_refused_by_name():
    latents = codec().encode(noise(100))
    other = Codec(small_models.model(small_models.KINDS[KIND], seed=1), window_sizes=(64, 128))
    message = refusal(other.decode, latents)
    assert latents.model[:12] in message and other.model_fingerprint[:12] in message
    named = dataclasses.replace(latents, model_name="tiny_44k")
    other.engine.name = "tiny_48k"
    assert re.search(r"another model: tiny_44k \(.*; this is tiny_48k \(", refusal(other.decode, named))


def test_a_checkpoint_without_a_rate_is_named(tmp_path):
    config = dataclasses.replace(small_models.KINDS[KIND], sample_rate=None)
    path = tmp_path / "rateless.safetensors"
    checkpoints.save(path, small_models.model(config))
    assert refusal(Codec.load, path).startswith(f"{path}: its config does not say the model's sample rate")
    assert Codec.load(path, sample_rate=RATE, window_sizes=(64, 128)).sample_rate == RATE


def test_too_many_latents_for_learned_positions_are_refused():
    transformer = dataclasses.replace(
        small_models.KINDS["transformer"].transformer, use_abs_pos_emb=True, abs_pos_emb_max_length=50
    )
    config = dataclasses.replace(small_models.KINDS["transformer"], transformer=transformer)
    codec = Codec(small_models.model(config), window_sizes=sizes_for(config))
    assert codec.decode(noise(50, 32)).shape == (200, 2)
    assert "51 latents exceed this model's abs_pos_emb_max_length" in refusal(codec.decode, noise(51, 32))


def test_bfloat16_is_close():
    config = small_models.KINDS[KIND]
    rough = Codec(small_models.model(config), dtype="bfloat16", window_sizes=sizes_for(config))
    audio = noise(900)
    exact, actual = codec().reconstruct(audio), rough.reconstruct(audio)
    # Eight bits of mantissa through a dozen layers.
    assert np.linalg.norm(actual - exact) < 0.1 * np.linalg.norm(exact)
    assert np.abs(actual - exact).max() > 0
