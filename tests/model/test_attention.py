"""Attention block by block is plain attention, in linear memory."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from places import HELPERS
from tolerances import ATTENTION

from earvae_jax.model.attention import attention
from earvae_jax.model.config import AttentionConfig, FeedForwardConfig, TransformerConfig

BLOCK = 16
LENGTHS = (1, 16, 17, 32, 47)


def plain(query, key, value, length):
    """softmax(q·kᵀ/√D)·v over the first `length` keys, as it is written."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / jnp.sqrt(query.shape[-1])
    hidden = jnp.arange(key.shape[1]) >= length[:, None]
    weights = jax.nn.softmax(jnp.where(hidden[:, None, None], -jnp.inf, scores), axis=-1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def draw(size, seed=0):
    random = np.random.default_rng(seed)
    return [3 * random.standard_normal((2, size, 2, 8), np.float32) for _ in range(3)]


def value_and_gradients(function):
    """Of one random projection of the output."""

    @jax.jit
    def run(query, key, value):
        output, pull = jax.vjp(function, query, key, value)
        projection = jnp.asarray(np.random.default_rng(9).standard_normal(output.shape, np.float32))
        return output, pull(projection)

    return run


@pytest.mark.parametrize("size", LENGTHS)
def test_blockwise_is_plain(size):
    arrays, length = draw(size), jnp.full(2, size)
    actual = value_and_gradients(lambda *a: attention(*a, block=BLOCK))(*arrays)
    expected = value_and_gradients(lambda *a: plain(*a, length))(*arrays)
    for ours, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=ATTENTION * np.abs(theirs).max())


@pytest.mark.parametrize("size", [12, 50])
def test_keys_behind_the_length_are_hidden(size):
    query, key, value = draw(size)
    run = jax.jit(lambda q, k, v, length: attention(q, k, v, length=length, block=BLOCK))
    for lengths in ((1, size), (size - 1, 7), (min(17, size), 16 if size > 16 else 3)):
        length = jnp.asarray(lengths)
        output = np.asarray(run(query, key, value, length))
        expected = np.asarray(plain(query, key, value, length))
        np.testing.assert_allclose(output, expected, rtol=0, atol=ATTENTION * np.abs(expected).max())
        for item, stop in enumerate(lengths):
            key[item, stop:], value[item, stop:] = 1e4, -1e4
        np.testing.assert_array_equal(run(query, key, value, length), output)


def test_large_scores_do_not_overflow():
    query, key, value = draw(50)
    output = attention(100 * query, 100 * key, value, block=BLOCK)
    expected = plain(100 * query, 100 * key, value, jnp.full(2, 50))
    np.testing.assert_allclose(output, expected, rtol=0, atol=ATTENTION * np.abs(value).max())


TRANSFORMERS = {
    "published": TransformerConfig(depth=2, dim_heads=32),
    "conformer": TransformerConfig(depth=1, dim_heads=32, conformer=True, use_sinusoidal_emb=True),
    "convolutions": TransformerConfig(
        depth=1,
        dim_heads=32,
        rotary_pos_emb=False,
        use_abs_pos_emb=True,
        attn_kwargs=AttentionConfig("l2"),
        ff_kwargs=FeedForwardConfig(glu=False, use_conv=True),
    ),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_long_sequences_and_short_ones_are_one_function(name, monkeypatch):
    """The blocks of a small BLOCK against one block; what lies behind `length` changes nothing."""
    from earvae_jax.model import transformer

    config = small_models.config((2,), latent_dim=32, transformer=TRANSFORMERS[name])
    module = small_models.model(config).transformers
    x = np.random.default_rng(0).standard_normal((1, 40, 32), np.float32)
    expected = np.asarray(jax.jit(lambda x: module(x))(x))
    monkeypatch.setattr(transformer, "BLOCK", BLOCK)
    padded = np.concatenate([x, np.full((1, 13, 32), np.nan, np.float32)], axis=1)
    for given, length in ((x, None), (padded, jnp.asarray([40]))):
        actual = np.asarray(jax.jit(lambda x, length=length: module(x, length))(given))[:, :40]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=ATTENTION * np.abs(expected).max())


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_codec_runs_the_same_transformer(name, monkeypatch):
    """Layer by layer, padded to a few lengths and in blocks: what comes out is the module's answer."""
    from earvae_jax.infer.engine import compiled

    config = small_models.config((2,), latent_dim=32, transformer=TRANSFORMERS[name])
    model = small_models.model(config)
    codec = compiled.CompiledModel(model)
    for size in (1, 40, 70):
        x = np.random.default_rng(size).standard_normal((size, 32), np.float32)
        expected = np.asarray(model.transformers(x[None]))[0]
        for block in (compiled.BLOCK, BLOCK):
            monkeypatch.setattr(compiled, "BLOCK", block)
            actual = codec.transform(x)
            assert actual.shape == x.shape
            np.testing.assert_allclose(actual, expected, rtol=0, atol=ATTENTION * np.abs(expected).max())


MEMORY = """
import re, pathlib, numpy as np, jax, small_models
from earvae_jax.model.config import TransformerConfig
from flax import nnx

def peak():
    # ru_maxrss would begin with the parent's.
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024

config = small_models.config((2,), latent_dim=32, transformer=TransformerConfig(depth=1, dim_heads=32))
graph, state = nnx.split(small_models.model(config).transformers)
run = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
run(state, np.zeros((1, 3000, 32), np.float32)).block_until_ready()
before = peak()
run(state, np.ones((1, 100_000, 32), np.float32)).block_until_ready()
print(peak() - before)
"""


@pytest.mark.slow
def test_a_hundred_thousand_latents_within_300_megabytes():
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], cwd=HELPERS, capture_output=True, text=True, check=True
    )
    assert 0 < float(done.stdout) < 300
