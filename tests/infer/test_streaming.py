"""Streams: blocks of any length give the whole file's numbers within the stated latency."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_file import assert_close, codec_of

from earvae_jax.errors import UserError

KINDS = ["even strides", "odd strides", "nearest"]
codec = functools.cache(codec_of)
lengths = st.lists(st.integers(0, 400), min_size=1, max_size=12)


def noise(rows, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns), np.float32)


def blocks(values, lengths):
    """The values in blocks of these lengths, the rest in the last."""
    cuts = np.cumsum(lengths[:-1])
    return np.split(values, cuts[cuts < len(values)])


def fed(take, values, lengths, allowed=None):
    """What a stream makes of the values; `allowed(given, returned)` is asserted after each block."""
    made, parts, given_rows, returned = [], blocks(values, lengths), 0, 0
    for place, part in enumerate(parts):
        made.append(take(part, last=place == len(parts) - 1))
        given_rows, returned = given_rows + len(part), returned + len(made[-1])
        assert allowed is None or allowed(given_rows, returned)
    return np.concatenate(made)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=15)
@given(samples=st.integers(1, 2500), lengths=lengths, block=st.sampled_from([1, 3, 8]))
def test_encoding_gives_the_latents_of_the_whole_file(kind, samples, lengths, block):
    audio, stream = noise(samples, 2), codec(kind).stream(block=block)
    ratio = codec(kind).config.downsampling_ratio

    def in_time(given, returned):
        return returned * ratio >= given - stream.encoder_latency

    made = fed(stream.encode, audio, lengths, in_time)
    assert_close(made, codec(kind).encode(audio).mean)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=15)
@given(
    count=st.integers(1, 150), lengths=st.lists(st.integers(0, 30), min_size=1), block=st.sampled_from([1, 4])
)
def test_decoding_gives_the_audio_of_the_whole_file(kind, count, lengths, block):
    latents = noise(count, codec(kind).config.latent_dim)
    stream = codec(kind).stream(block=block)
    ratio = codec(kind).config.downsampling_ratio

    def in_time(given, returned):
        return returned >= given * ratio - stream.decoder_latency

    assert_close(fed(stream.decode, latents, lengths, in_time), codec(kind).decode(latents))


@settings(deadline=None, max_examples=15)
@given(samples=st.integers(1, 3000), lengths=lengths)
def test_reconstruction_keeps_the_length_and_the_latency(samples, lengths):
    audio, stream = noise(samples, 2), codec("even strides").stream(block=2)
    made = fed(stream.reconstruct, audio, lengths, lambda came, went: went >= came - stream.latency)
    assert_close(made, codec("even strides").reconstruct(audio))


def test_a_transformer_that_sees_all_gives_the_whole_file():
    audio = noise(1500, 2)
    stream = codec("transformer").stream(block=4, past=1000, future=1000)
    made = fed(stream.reconstruct, audio, [100] * 20)
    assert_close(made, codec("transformer").reconstruct(audio))


def test_a_transformer_that_sees_more_is_nearer_to_the_whole_file():
    latents = noise(300, codec("transformer").config.latent_dim)
    whole = codec("transformer").decode(latents)

    def distance(**seen):
        made = fed(codec("transformer").stream(**seen).decode, latents, [7] * 50)
        return float(np.abs(made - whole).max() / np.abs(whole).max())

    assert 0 < distance(past=128, future=32) < distance(past=4, future=0)


def test_a_stream_without_audio_returns_nothing():
    stream = codec("even strides").stream()
    assert stream.reconstruct(np.zeros((0, 2), np.float32), last=True).shape == (0, 2)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(5, np.float32), r"shape \[5\]; expected \[any, 2\]"),
        (np.zeros((5, 1), np.float32), r"shape \[5, 1\]"),
        (np.zeros((5, 2), np.int16), "int16 values; expected floats"),
        (np.full((5, 2), np.nan, np.float32), "NaN"),
    ],
)
def test_what_a_stream_cannot_take_is_named(audio, message):
    with pytest.raises(UserError, match=message):
        codec("even strides").stream().encode(audio)


def test_more_after_the_last_is_refused():
    stream = codec("even strides").stream()
    stream.encode(noise(10, 2), last=True)
    with pytest.raises(UserError, match="after the last"):
        stream.encode(noise(10, 2))


@pytest.mark.parametrize("wrong", [{"block": 0}, {"past": -1}, {"future": 1.5}])
def test_wrong_numbers_of_latents_are_named(wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))}="):
        codec("even strides").stream(**wrong)
