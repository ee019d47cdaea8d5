"""Rows compute what the modules do, however a signal is cut, and a TPU's programs are made of them."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from hypothesis import strategies as st
from tolerances import TILED

from earvae_jax.infer.formulations import rows
from earvae_jax.infer.formulations.choice import PlainFormulation, choose_formulation
from earvae_jax.infer.formulations.rows import RowsFormulation, rows_of
from earvae_jax.model.layers import Extent

CONFIGS = {
    "usual": small_models.config((2, 4), channels=8),
    "odd strides": small_models.config((3, 5), channels=8, tied_activations=False),
    "many levels": small_models.config((2, 4, 4), channels=4, bias=False, final_tanh=True),
    "elu": small_models.config((6, 2), channels=8, use_snake=False),
}
BATCH = 2


@pytest.fixture
def short_rows(monkeypatch):
    monkeypatch.setattr(rows, "_SHORT", 32)
    monkeypatch.setattr(rows, "_LONG", 64)
    monkeypatch.setattr(rows, "_FEW", 4)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    "latents", [5, 48, pytest.param(32, marks=pytest.mark.slow), pytest.param(256, marks=pytest.mark.slow)]
)
def test_rows_compute_what_the_modules_do(short_rows, name, half, latents):
    config = CONFIGS[name]
    module = getattr(small_models.model(config), half)
    step, channels = (config.downsampling_ratio, 2) if half == "encoder" else (1, config.latent_dim)
    x = np.random.default_rng(latents).standard_normal((BATCH, latents * step, channels)).astype(np.float32)
    # The whole window; a file that began before it and ends in it; one that begins in it and goes on.
    goes_on = latents + (9 if name != "odd strides" else 0)
    limits = [(0, latents), (-step, latents - 2), (2, goes_on)]
    functions = []
    for formulation in (PlainFormulation(), RowsFormulation(config, "float32")):
        weights, function = getattr(formulation, half)(module)
        functions.append(functools.partial(jax.jit(function), weights, x))
    for first, second in zip(limits, limits[1:] + limits[:1], strict=True):
        start, stop = np.asarray([first, second], np.int32).T * step
        made = [np.asarray(run(Extent(jnp.asarray(start), jnp.asarray(stop)))) for run in functions]
        assert made[0].shape == made[1].shape
        np.testing.assert_allclose(made[1], made[0], rtol=0, atol=TILED * np.abs(made[0]).max())


@hypothesis.given(st.integers(1, 1 << 21))
def test_rows_are_equal_and_begin_at_multiples_of_a_stride(steps):
    count = rows_of(steps)
    row, rest = divmod(steps, count)
    assert rest == 0 and (count == 1 or (row % 16 == 0 and row >= 256))


def test_the_published_windows_are_cut():
    assert rows_of(1024 * 1024) == 256 and rows_of(1024 * 960) == 128 and rows_of(64) == 1


def test_a_tpu_takes_rows_where_it_can():
    usual = CONFIGS["usual"]
    assert isinstance(choose_formulation(usual, "tpu", "bfloat16"), RowsFormulation)
    for strides, change in (
        ((2, 4), {"use_nearest_upsample": True}),
        ((2, 4), {"antialias_activation": True}),
        ((2, 32), {}),
    ):
        other = small_models.config(strides, channels=8, **change)
        assert isinstance(choose_formulation(other, "tpu", "bfloat16"), PlainFormulation)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_no_convolution_sees_a_long_signal(half):
    config = CONFIGS["many levels"]
    step, channels = (config.downsampling_ratio, 2) if half == "encoder" else (1, config.latent_dim)
    weights, function = getattr(RowsFormulation(config, "bfloat16"), half)(
        getattr(small_models.model(config), half)
    )
    extent = Extent(jnp.zeros(1, jnp.int32), jnp.full(1, 1 << 30, jnp.int32))
    x = jnp.zeros((1, 16_384 * step, channels), jnp.bfloat16)
    text = str(jax.make_jaxpr(function)(weights, x, extent))
    shapes = [
        line.split(":")[1].split(" =")[0] for line in text.splitlines() if "conv_general_dilated[" in line
    ]
    assert shapes
    assert max(int(shape.split(",")[1]) for shape in shapes) <= 2 * 4096 + 1
