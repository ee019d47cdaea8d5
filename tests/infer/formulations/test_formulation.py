"""The fast formulation for CPUs computes what the modules do, over any extent, batch and chunk."""

import argparse
import functools
import importlib
import os
import subprocess
import sys

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from hypothesis import strategies as st
from places import HELPERS
from tolerances import TILED, TOOM_COOK

from earvae_jax.errors import UserError
from earvae_jax.infer.formulations import laid_out, toom_cook
from earvae_jax.infer.formulations.choice import NAMES, PlainFormulation, choose_formulation
from earvae_jax.infer.formulations.chunked import ChunkedFormulation
from earvae_jax.infer.formulations.laid_out import LaidOutFormulation
from earvae_jax.model.layers import Extent
from earvae_jax.model.snake import snake

MODULES = {name: f"earvae_jax.infer.commands.{name}" for name in ("encode", "decode", "reconstruct")}
MODULES["benchmark"] = "earvae_jax.infer.benchmark.command"
LATENTS, BATCH = 24, 3
CONFIGS = {
    "usual": small_models.config((2, 4), channels=8),
    "rare": small_models.config((6, 2), channels=8, bias=False, final_tanh=True),
    "untied": small_models.config((2, 4), channels=8, tied_activations=False),
}
CHUNKS = {"usual": 40, "rare": None, "untied": 40}  # many chunks a level, and one
CASES = [(name, half) for name in CONFIGS for half in ("encoder", "decoder")]


@functools.cache
def pair(name, half):
    """The half as the modules compute it and in chunks: (input shape, function, function, program)."""
    config = CONFIGS[name]
    model = small_models.model(config)
    step, channels = (config.downsampling_ratio, 2) if half == "encoder" else (1, config.latent_dim)
    shape = (BATCH, LATENTS * step, channels)
    extent = Extent(jnp.zeros(BATCH, jnp.int32), jnp.zeros(BATCH, jnp.int32))
    functions = []
    for formulation in (PlainFormulation(), ChunkedFormulation(config, chunk=CHUNKS[name])):
        weights, function = getattr(formulation, half)(getattr(model, half))
        jitted = jax.jit(function, compiler_options=formulation.compiler_options)
        program = jitted.lower(weights, jnp.zeros(shape), extent).compile()
        functions.append(functools.partial(program, weights))
    return shape, *functions, program


@functools.cache
def noise(shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def extents(values):
    start, stop = np.asarray(values, np.int32).T
    return Extent(jnp.asarray(start), jnp.asarray(stop))


@pytest.mark.parametrize(("name", "half"), CASES)
@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(data=st.data())
def test_computes_what_the_modules_do(name, half, data):
    shape, plain, chunked, _ = pair(name, half)
    bound = st.tuples(st.integers(-4, LATENTS - 1), st.integers(1, LATENTS + 9)).filter(lambda b: b[0] < b[1])
    bounds = np.asarray(data.draw(st.tuples(*[bound] * BATCH)))
    ratio = CONFIGS[name].downsampling_ratio
    before, after = (ratio, 1) if half == "encoder" else (1, ratio)
    values = noise(shape).copy()
    for item, (start, stop) in enumerate(bounds * before):
        values[item, : max(start, 0)] = np.nan
        values[item, max(stop, 0) :] = np.nan
    expected = np.asarray(plain(values, extents(bounds * before)))
    result = np.asarray(chunked(values, extents(bounds * before)))
    assert result.shape == expected.shape
    assert np.isfinite(result).all()
    for item, (start, stop) in enumerate(bounds):
        inside = np.s_[item, max(start, 0) * after : max(stop, 0) * after]
        peak = np.abs(expected[inside]).max(initial=1e-3)
        np.testing.assert_allclose(result[inside], expected[inside], rtol=0, atol=TILED * peak)


@pytest.mark.parametrize(("name", "half"), CASES)
def test_items_of_a_batch_do_not_mix(name, half):
    shape, _, chunked, _ = pair(name, half)
    extent = extents([(0, shape[1])] * BATCH)
    values = noise(shape)
    result = np.asarray(chunked(values, extent))
    # In another order as close as rounding: without AVX-512 XLA's product of matrices rounds a row by
    # its place among the others.
    reversed_result = np.asarray(chunked(values[::-1].copy(), extent))[::-1]
    np.testing.assert_allclose(reversed_result, result, rtol=0, atol=TILED * np.abs(result).max())
    loud = values.copy()
    loud[1] *= 100
    np.testing.assert_array_equal(np.asarray(chunked(loud, extent))[[0, 2]], result[[0, 2]])


@pytest.mark.parametrize(("half", "alone"), [("encoder", 1), ("decoder", 0)])
def test_each_activation_is_computed_once(half, alone):
    # A snake rounds once. Three units with two snakes of four phases, and one more snake of four phases for
    # the encoder's levels and the decoder's end; the decoder's levels begin with one undivided.
    units = len(CONFIGS["usual"].encoder.strides) * 3 * 2 * 4
    levels = 2 * 4 if half == "encoder" else 2 + 4
    program = pair("usual", half)[3]
    assert program.as_text().count("round-nearest-even(") == units + levels + alone


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(dilation=st.sampled_from([1, 3, 5, 9]), steps=st.integers(1, 40), extra=st.integers(0, 3))
def test_toom_cook_is_the_convolution(dilation, steps, extra):
    generator = np.random.default_rng(steps)
    count = toom_cook.inputs_for(steps, dilation) + extra
    x = generator.standard_normal((1, 4 * count, 5)).astype(np.float32)
    kernel = generator.standard_normal((7, 5, 6))
    kernels = toom_cook.transform_kernel(kernel)
    phases = toom_cook.convolve(toom_cook.split(jnp.asarray(x)), kernels, dilation, steps)
    begin = 4 * toom_cook.lag(dilation)
    taps = [x[0, begin + k * dilation :][: 4 * steps].astype(np.float64) @ kernel[k] for k in range(7)]
    np.testing.assert_allclose(np.asarray(toom_cook.join(phases))[0], sum(taps), rtol=0, atol=TOOM_COOK)


def test_choice():
    wide = small_models.config((2, 4), channels=128)
    assert isinstance(choose_formulation(wide, "cpu", "float32"), ChunkedFormulation)
    assert isinstance(choose_formulation(wide, "cpu", "float32", name="plain"), PlainFormulation)
    for case in ((wide, "gpu", "float32"), (small_models.config((2, 4), channels=8), "cuda", "bfloat16")):
        assert isinstance(choose_formulation(*case), LaidOutFormulation), case
    others = [
        (wide, "cpu", "bfloat16"),
        (small_models.config((2, 4), channels=8), "cpu", "float32"),
        (small_models.config((2, 3), channels=128), "cpu", "float32"),
        (small_models.config((2, 4), channels=128, use_snake=False), "cpu", "float32"),
        (small_models.config((2, 4), channels=128, antialias_activation=True), "cpu", "float32"),
        (small_models.config((2, 4), channels=128, use_nearest_upsample=True), "cpu", "float32"),
    ]
    for case in others:
        assert isinstance(choose_formulation(*case), PlainFormulation), case


LAID_OUT = {
    **CONFIGS,
    "nearest": small_models.config((2, 3), channels=8, use_nearest_upsample=True),
    "antialiased": small_models.config((2, 5), channels=8, antialias_activation=True),
    "elu": small_models.config((3, 2), channels=8, use_snake=False),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "antialiased")) for name in LAID_OUT]
)
def test_laid_out_weights_give_the_same_bits(name, half, dtype, monkeypatch):
    # In rows and with a shorter sine bfloat16 rounds other numbers.
    monkeypatch.setattr(laid_out, "row_of", lambda dilation, dtype: 1)
    monkeypatch.setattr(laid_out, "snake_for", lambda dtype: snake)
    plain, ours = (outputs(LAID_OUT[name], half, way, dtype) for way in (PlainFormulation(), None))
    np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_what_a_gpu_computes_otherwise_is_as_exact(half):
    """In bfloat16, against float32 of the same weights: a window in which the file begins and ends."""
    config = LAID_OUT["usual"]
    truth = outputs(config, half, PlainFormulation(), "float32")
    plain, ours = (outputs(config, half, way, "bfloat16") for way in (PlainFormulation(), None))
    assert np.any(ours != plain), "nothing was computed in rows or with a shorter sine"
    off, theirs = (np.sqrt(np.mean((each - truth) ** 2)) for each in (ours, plain))
    assert off <= 1.2 * theirs, (off, theirs)


def outputs(config, half, formulation, dtype):
    """Of three windows in float32; without a formulation, of the laid out weights."""
    module = getattr(small_models.model(config), half)
    step, channels = (config.downsampling_ratio, 2) if half == "encoder" else (1, config.latent_dim)
    values = jnp.asarray(noise((BATCH, LATENTS * step, channels)), dtype)
    bounds = extents([(0, LATENTS * step), (-step, 5 * step), (3 * step, (LATENTS + 9) * step)])
    weights, function = getattr(formulation or LaidOutFormulation(dtype), half)(module)
    return np.asarray(jax.jit(function)(weights, values, bounds), np.float32)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_laid_out_weights_are_neither_transposed_nor_cast_at_a_call(half):
    config = LAID_OUT["usual"]
    module = getattr(small_models.model(config), half)
    shape = (1, 8 * config.downsampling_ratio, 2) if half == "encoder" else (1, 8, config.latent_dim)
    casts = []
    for formulation in (PlainFormulation(), LaidOutFormulation("bfloat16")):
        weights, function = getattr(formulation, half)(module)
        text = str(jax.make_jaxpr(function)(weights, jnp.zeros(shape, jnp.bfloat16), extents([(0, 99)])))
        casts.append(text.count(" convert_element_type["))
    assert " transpose[" not in text and " rev[" not in text
    kernels = [kernel for kernel in jax.tree.leaves(weights) if kernel.ndim == 3]
    biases = [bias for bias in jax.tree.leaves(weights) if bias.ndim == 1 and bias.dtype == jnp.bfloat16]
    assert kernels and all(kernel.dtype == jnp.bfloat16 for kernel in kernels)
    assert casts[0] - casts[1] >= len(kernels) + len(biases)


@pytest.mark.parametrize(
    ("case", "word"),
    [
        ((small_models.config((2, 4), channels=128), "gpu", "float32"), "for CPUs, and this is a GPU"),
        ((small_models.config((2, 4), channels=128), "cpu", "bfloat16"), "float32, not bfloat16"),
        ((small_models.config((2, 3), channels=128), "cpu", "float32"), "even strides"),
    ],
)
def test_what_the_chunked_one_cannot_run(case, word):
    with pytest.raises(UserError, match=word):
        choose_formulation(*case, name="chunked")


def test_names():
    wide = small_models.config((2, 4), channels=128)
    with pytest.raises(UserError, match="choose one of auto, plain, chunked, cudnn, fused, tails"):
        choose_formulation(wide, "cpu", "float32", name="fast")
    narrow = small_models.config((2, 4), channels=8)
    assert isinstance(choose_formulation(narrow, "cpu", "float32", name="chunked"), ChunkedFormulation)
    for command in ("encode", "decode", "reconstruct", "benchmark"):
        parser = argparse.ArgumentParser()
        importlib.import_module(MODULES[command]).add_arguments(parser)
        (flag,) = (action for action in parser._actions if "--formulation" in action.option_strings)
        assert flag.choices == NAMES, f"{command} knows others"


_ON_A_MESH = """
import jax, numpy as np, small_models
from earvae_jax.infer.engine.compiled import CompiledModel
from earvae_jax.infer.formulations.chunked import ChunkedFormulation
import earvae_jax.infer.engine.compiled as compiled
compiled.choose_formulation = lambda config, *_, **__: ChunkedFormulation(config, chunk=40)
config = small_models.config((2,), channels=8)
model = small_models.model(config)
audio = np.random.default_rng(0).standard_normal((2, 96, 2)).astype(np.float32)
start, stop = np.asarray([0, 8], np.int32), np.asarray([96, 90], np.int32)
both, one = CompiledModel(model), CompiledModel(model, devices=jax.devices()[:1])
for ours, theirs in zip(both.encode(audio, start, stop), one.encode(audio, start, stop), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert len(ours.sharding.device_set) == 2
arguments = [jax.device_put(x, both._split) for x in (audio, start, stop)]
text = both._encode.lower(both.encoder_weights, *arguments).compile().as_text()
for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
    assert word not in text, word
"""


def test_devices_do_not_talk_to_each_other():
    environment = dict(
        os.environ,
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
        JAX_PLATFORMS="cpu",
        PYTHONPATH=str(HELPERS),
    )
    subprocess.run([sys.executable, "-c", _ON_A_MESH], env=environment, check=True)
