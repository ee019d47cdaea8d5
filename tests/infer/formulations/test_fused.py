"""The fused residual units, interpreted, compute what the modules do: a level, a half, a whole codec."""

import functools
import itertools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from flax import nnx
from hypothesis import strategies as st
from tolerances import FUSED, FUSED_BFLOAT16, TILED

from earvae_jax.errors import UserError
from earvae_jax.infer import Codec
from earvae_jax.infer.engine import compiled
from earvae_jax.infer.formulations.choice import PlainFormulation, choose_formulation
from earvae_jax.infer.formulations.fused import gpu, tails, tpu
from earvae_jax.infer.formulations.fused.formulation import FusedFormulation
from earvae_jax.infer.formulations.fused.weights import snake_weights, unit_weights
from earvae_jax.infer.formulations.laid_out import LaidOutFormulation
from earvae_jax.model.layers import Extent, SnakeBeta, folded
from earvae_jax.model.oobleck import DILATIONS, ResidualUnit

KERNELS = {"gpu": gpu, "tpu": tpu}
WAYS = {"gpu": ("gpu", False), "tails": ("gpu", True), "tpu": ("tpu", False)}  # platform, tails_alone


@pytest.fixture(autouse=True)
def narrow_kernels(monkeypatch):
    """A TPU's lanes are 128 wide; interpreted, other widths do as well."""
    for channels in (8, 16):
        monkeypatch.setitem(tpu.STEPS, channels, 64)
    monkeypatch.setitem(gpu.TILINGS, (8, 4), gpu.Tiling(64, 4, 2, 4))  # parts of the input and of the output
    monkeypatch.setitem(gpu.TILINGS, (8, 2), gpu.Tiling(64, 8, 4, 4))
    for channels, size in itertools.product((8, 16), (2, 4)):
        monkeypatch.setitem(tails.TILINGS, (channels, size), tails.Tiling(64, 4, 4))


def randomized(module, seed):
    """The module with random numbers for all its arrays, folded."""
    random = np.random.default_rng(seed)
    graph, state = nnx.split(module)
    state = jax.tree.map(lambda a: jnp.asarray(random.uniform(-0.6, 0.6, a.shape), a.dtype), state)
    return folded(nnx.merge(graph, state))


def level(channels, *, tied, bias, seed):
    """Three units and the activation behind them."""
    units = [
        ResidualUnit(channels, dilation, use_snake=True, tied=tied, bias=bias, rngs=nnx.Rngs(0))
        for dilation in DILATIONS
    ]
    return randomized(nnx.List([*units, SnakeBeta(channels)]), seed)


def in_float64(units, after, x, extent):
    """The level in NumPy: kernels and inputs in the type of x, nothing else rounded."""
    exact, dtype = functools.partial(np.asarray, dtype=np.float64), x.dtype

    def snake(y, activation):
        return y + exact(activation.amplitude) * np.sin(y * exact(activation.frequency)) ** 2

    def bias(conv):
        return 0.0 if conv.bias is None else exact(conv.bias[...])

    x = exact(x)
    times = np.arange(x.shape[1])
    inside = ((times >= exact(extent.start)[:, None]) & (times < exact(extent.stop)[:, None]))[..., None]
    x = np.where(inside, x, 0)
    for unit in units:
        first, wide, second, pointwise = unit.layers
        kernels, margin = exact(wide.kernel.astype(dtype)), wide.padding
        y = np.pad(np.where(inside, snake(x, first), 0), ((0, 0), (margin, margin), (0, 0)))
        taps = (y[:, tap * wide.dilation :][:, : x.shape[1]] @ kernels[tap] for tap in range(wide.width))
        y = snake(sum(taps) + bias(wide), second) @ exact(pointwise.kernel.astype(dtype))[0]
        x = x + y + bias(pointwise)
    return np.where(inside, x if after is None else snake(x, after), 0)


@pytest.mark.parametrize("way", WAYS)
@hypothesis.settings(
    max_examples=4,
    deadline=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate],  # each compiles
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(data=st.data())
def test_a_level_is_that_of_the_modules(way, data):
    """Over lengths that do not divide the tiles, batches, widths, types and the extents of windows."""
    dtype = jnp.dtype(data.draw(st.sampled_from(["float32", "bfloat16"]), "dtype"))
    channels = data.draw(st.sampled_from([8, 16]), "channels")
    tied, bias, ended = (data.draw(st.booleans(), word) for word in ("tied", "bias", "ended"))
    batch, length = data.draw(st.integers(1, 2), "batch"), data.draw(st.integers(1, 300), "length")
    bound = st.tuples(st.integers(-5, length - 1), st.integers(1, length + 5)).filter(lambda b: b[0] < b[1])
    bounds = data.draw(st.tuples(*[bound] * batch), "bounds")
    seed = data.draw(st.integers(0, 1000), "seed")
    *units, after = level(channels, tied=tied, bias=bias, seed=seed)
    after = after if ended else None
    x = np.random.default_rng(seed).standard_normal((batch, length, channels)).astype(dtype)
    for item, (start, stop) in enumerate(bounds):
        x[item, : max(start, 0)] = np.nan
        x[item, stop:] = np.nan
    x = jnp.asarray(x)
    extent = Extent(*(jnp.asarray(each, jnp.int32) for each in zip(*bounds, strict=True)))

    @jax.jit
    def both(x):
        kernels, weights_of = (tails, tails.weights_of) if way == "tails" else (KERNELS[way], unit_weights)
        weights = [weights_of(unit, dtype) for unit in units]
        snake = None if after is None else snake_weights(after)
        fused = kernels.run_units(x, weights, snake, extent, interpret=True)
        for unit in units:
            x = unit(x, extent)
        return fused, extent.keep(x if after is None else after(x))

    with jax.default_matmul_precision("highest"):
        fused, plain = (np.asarray(y, np.float64) for y in both(x))
    exact = in_float64(units, after, x, extent)
    peak = np.abs(exact).max()
    assert fused.shape == exact.shape
    assert np.all(fused[exact == 0] == 0), "not zero outside the extent"
    if dtype == np.float32:
        np.testing.assert_allclose(fused, plain, rtol=0, atol=FUSED * peak)
        np.testing.assert_allclose(fused, exact, rtol=0, atol=FUSED * peak)
    else:
        np.testing.assert_allclose(fused, exact, rtol=0, atol=FUSED_BFLOAT16 * peak)
        # The kernels round where the modules do, and less often.
        ours, theirs = (np.sqrt(np.mean((y - exact) ** 2)) for y in (fused, plain))
        few = exact.size < 1000  # the rounding of so few values is no average
        assert ours <= (2 if few else 1.1) * theirs + 1e-3 * peak


CONFIGS = {
    "usual": small_models.config((2, 4), channels=16),
    "untied, without bias": small_models.config((4, 2), channels=16, tied_activations=False, bias=False),
    "odd": small_models.config((3, 5), channels=8, final_tanh=True),
    "nearest": small_models.config((2, 3), channels=8, use_nearest_upsample=True),
    "antialiased": small_models.config((2, 2), channels=8, antialias_activation=True),
}
LATENTS, BATCH = 12, 2


def fused_formulation(config, way):
    platform, tails_alone = WAYS[way]
    return FusedFormulation(config, platform, "float32", tails_alone=tails_alone, interpret=True)


@functools.cache
def pair(name, half, way):
    """A half as the modules compute it and fused: (shape of its input, function, function)."""
    config = CONFIGS[name]
    model = small_models.model(config)
    step, channels = (config.downsampling_ratio, 2) if half == "encoder" else (1, config.latent_dim)
    functions = []
    for formulation in (PlainFormulation(), fused_formulation(config, way)):
        weights, function = getattr(formulation, half)(getattr(model, half))
        functions.append(functools.partial(jax.jit(function), weights))
    return (BATCH, LATENTS * step, channels), *functions


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (place > 1)) for place, name in enumerate(CONFIGS)]
)
def test_a_half_is_that_of_the_modules(name, half, way):
    shape, plain, fused = pair(name, half, way)
    ratio = CONFIGS[name].downsampling_ratio
    before = ratio if half == "encoder" else 1
    random = np.random.default_rng(0)
    for bounds in ([(0, LATENTS), (0, LATENTS)], [(3, LATENTS - 2), (-2, LATENTS + 3)], [(0, 1), (5, 9)]):
        values = random.standard_normal(shape).astype(np.float32)
        for item, (start, stop) in enumerate(np.asarray(bounds) * before):
            values[item, : max(start, 0)] = np.nan
            values[item, max(stop, 0) :] = np.nan
        start, stop = (jnp.asarray(each, jnp.int32) * before for each in zip(*bounds, strict=True))
        with jax.default_matmul_precision("highest"):
            expected, result = (np.asarray(run(values, Extent(start, stop))) for run in (plain, fused))
        assert result.shape == expected.shape
        kept = expected.shape[1] // LATENTS  # a latent's steps in the output, or some fewer for odd strides
        for item, (start, stop) in enumerate(bounds):
            inside = np.s_[item, max(start, 0) * kept : max(stop, 0) * kept]
            peak = np.abs(expected[inside]).max()
            np.testing.assert_allclose(result[inside], expected[inside], rtol=0, atol=TILED * peak)


@pytest.mark.parametrize("way", WAYS)
def test_a_whole_codec(way, monkeypatch):
    """Windows, batches and the transformer's latents as in the plain codec, with units of both sorts."""
    config = small_models.config((2, 4), channels=16)
    model = small_models.model(config)
    audio = np.random.default_rng(0).standard_normal((3001, 2)).astype(np.float32)
    options = {"window_sizes": (64,), "batch_size": 2}
    plain = Codec(model, formulation="plain", **options)
    chosen = fused_formulation(config, way)
    monkeypatch.setattr(compiled, "choose_formulation", lambda *_, **__: chosen)
    fused = Codec(model, formulation="fused", **options)
    expected, latents = plain.encode(audio), fused.encode(audio)
    np.testing.assert_allclose(latents.mean, expected.mean, atol=TILED * np.abs(expected.mean).max())
    decoded = plain.decode(expected)
    np.testing.assert_allclose(fused.decode(expected), decoded, atol=TILED * np.abs(decoded).max())


WIDE = small_models.config((2, 4), channels=128)


@pytest.mark.parametrize(
    ("config", "platform", "dtype", "word"),
    [
        (WIDE, "cpu", "bfloat16", "this is a CPU"),
        (WIDE, "gpu", "float32", "tf32 or bfloat16"),
        (small_models.config((2, 4), channels=96), "gpu", "bfloat16", "units of 96 channels"),
        (small_models.config((2, 4), channels=64), "tpu", "bfloat16", "units of 64 channels"),
        (small_models.config((2, 4), channels=128, use_snake=False), "gpu", "bfloat16", "none: use plain"),
    ],
)
def test_what_it_cannot_run(config, platform, dtype, word):
    with pytest.raises(UserError, match=word):
        choose_formulation(config, platform, dtype, name="fused")


@pytest.mark.parametrize(
    ("platform", "dtype", "word"),
    [
        ("cpu", "bfloat16", "this is a CPU"),
        ("tpu", "bfloat16", "this is a TPU"),
        ("gpu", "float32", "tf32 or bfloat16"),
    ],
)
def test_where_there_are_no_tails(platform, dtype, word):
    with pytest.raises(UserError, match=word):
        choose_formulation(WIDE, platform, dtype, name="tails")


def test_it_is_chosen_by_its_name_alone():
    for platform in KERNELS:
        chosen = choose_formulation(WIDE, platform, "bfloat16")
        assert not isinstance(chosen, FusedFormulation)
        assert isinstance(choose_formulation(WIDE, platform, "bfloat16", name="fused"), FusedFormulation)
    assert isinstance(choose_formulation(WIDE, "gpu", "float32", name="fused", exact=False), FusedFormulation)


def test_tails_are_chosen_where_they_were_measured():
    """In bfloat16 on the kind of card that has measured them, for models that have such units."""
    measured = {"compute_capability": "9.0"}
    chosen = choose_formulation(WIDE, "gpu", "bfloat16", exact=False, **measured)
    assert isinstance(chosen, FusedFormulation) and chosen._kernels is tails
    without = [
        (WIDE, "bfloat16", {"compute_capability": "8.0"}),
        (WIDE, "bfloat16", {}),
        (WIDE, "float32", measured),
        (small_models.config((2, 4), channels=96), "bfloat16", measured),
        (small_models.config((2, 4), channels=128, use_snake=False), "bfloat16", measured),
    ]
    for config, dtype, device in without:
        chosen = choose_formulation(config, "gpu", dtype, exact=dtype == "float32", **device)
        assert isinstance(chosen, LaidOutFormulation), (dtype, device)
    with pytest.raises(UserError, match="no kernel for residual units of 128 channels in float32 on a GPU"):
        choose_formulation(WIDE, "gpu", "float32", name="tails", exact=False)


def test_memory_of_other_gpus():
    """An A100 and a desktop card have less shared memory: fewer products come ahead."""
    tiling = gpu.TILINGS[128, 2]
    assert [tiling.stages(128, 2, size) for size in (232_448, 166_912, 101_376)] == [4, 3, 2]
    for (channels, size), each in gpu.TILINGS.items():
        assert each.stages(channels, size, 101_376) >= 2
