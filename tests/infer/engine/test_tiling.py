"""Windows cover a file exactly, and what they give is the whole-file answer."""

import functools
import itertools
import json
from importlib import resources

import numpy as np
import pytest
import small_models
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_file import codec_of, compare, sizes_for, whole_file, whole_file_of

from earvae_jax.errors import UserError
from earvae_jax.infer.codec import Codec
from earvae_jax.infer.engine.batching import Batcher, BatchSize
from earvae_jax.infer.engine.cutting import cut_audio, cut_latents, latent_count
from earvae_jax.infer.engine.tiling import GPU_OVERHEAD, OVERHEAD, WINDOW_SIZES, Tiling
from earvae_jax.infer.formulations import choice as formulation
from earvae_jax.model.config import ModelConfig
from earvae_jax.receptive_field import Reach

pytestmark = pytest.mark.usefixtures("quick_compilation")
QUICK_KINDS = ("even strides", "odd strides")  # of which every length is tried in the quick tests too

tilings = st.builds(
    lambda sizes, left, right: (sizes, Reach(left, right)),
    st.lists(st.integers(8, 200), min_size=1, max_size=3, unique=True),
    st.integers(0, 12),
    st.integers(0, 12),
).filter(lambda drawn: min(drawn[0]) > sum(drawn[1]))


@given(tilings, st.integers(1, 2000))
def test_windows_cover_a_file_without_gap_or_overlap(tiling, latents):
    sizes, context = tiling
    windows = Tiling(sizes, context).plan(latents)
    kept = 0
    for window in windows:
        assert window.size in sizes and window.start >= 0 and window.start < latents
        assert window.keep_from == kept < window.keep_to
        kept = window.keep_to
        # What is kept has its context in the window, or the file ends there.
        assert window.start == 0 or window.keep_from - window.start >= context.left
        end = window.start + window.size
        assert window.keep_to <= end
        assert end >= latents or end - window.keep_to >= context.right
    assert kept == latents


@given(tilings, st.integers(1, 2000), st.tuples(st.integers(0, 300), st.integers(0, 300)))
def test_windows_that_cost_more_are_no_more(tiling, latents, overheads):
    cheap, dear = (len(Tiling(*tiling, overhead=each).plan(latents)) for each in sorted(overheads))
    assert dear <= cheap


def test_a_gpu_takes_one_long_window_rather_than_six():
    context = Reach(9, 9)
    assert len(Tiling(WINDOW_SIZES, context, overhead=OVERHEAD).plan(862)) == 6
    assert [each.size for each in Tiling(WINDOW_SIZES, context, overhead=GPU_OVERHEAD).plan(862)] == [1024]


def test_short_files_take_short_windows():
    tiling = Tiling(WINDOW_SIZES, Reach(11, 11))
    assert [window.size for window in tiling.plan(40)] == [64]
    assert [window.size for window in tiling.plan(200)] == [256]
    # An hour at 43 latents a second: nearly all in the longest windows.
    sizes = [window.size for window in tiling.plan(155_000)]
    assert sum(size < 1024 for size in sizes) <= 4
    assert sum(sizes) < 155_000 * 1.03


def test_windows_shorter_than_the_context_are_refused():
    with pytest.raises(UserError, match="keeps none"):
        Tiling((16, 64), Reach(8, 8))


@settings(deadline=None)
@given(tilings, st.integers(1, 3000), st.lists(st.integers(1, 700), min_size=1, max_size=8), st.data())
def test_streamed_audio_is_cut_as_if_it_were_whole(tiling, samples, block_sizes, data):
    sizes, context = tiling
    config = small_models.config(data.draw(st.sampled_from([(2, 2), (3,), (2, 3)])))
    tiling, ratio = Tiling(sizes, context), config.downsampling_ratio
    audio = np.arange(1, 2 * samples + 1, dtype=np.float32).reshape(samples, 2)

    def blocks():
        position = 0
        for index in range(10**6):
            if position >= samples:
                return
            size = block_sizes[index % len(block_sizes)]
            yield audio[position : position + size]
            position += size

    latents = latent_count(config, samples)
    whole = np.zeros((latents * ratio + max(sizes) * ratio, 2), np.float32)
    whole[:samples] = audio
    windows = []
    for cut in cut_audio(blocks(), config, tiling):
        begin = cut.window.start * ratio
        np.testing.assert_array_equal(cut.values, whole[begin : begin + cut.window.size * ratio])
        assert (cut.start < 0) == (begin > 0) and cut.start <= 0
        # The extent holds the padding up to a whole latent, and nothing behind.
        assert min(cut.stop, len(cut.values)) == min(latents * ratio - begin, len(cut.values))
        windows.append(cut.window)
    assert windows == tiling.plan(latents)


def check(kind, samples, batch_size=1, seed=0):
    compare(codec_of(kind, batch_size), whole_file(kind), samples, seed)


def lengths(kind: str):
    """From one sample to four windows, borders of latents and windows among them."""
    config = small_models.KINDS[kind]
    ratio, (short, long) = config.downsampling_ratio, sizes_for(config)
    borders = [size * ratio + more for size in (1, short, long) for more in (-1, 0, 1)]
    return st.one_of(st.sampled_from([1, *borders]), st.integers(1, 4 * long * ratio))


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in QUICK_KINDS)) for kind in small_models.KINDS],
)
@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_tiled_is_whole_file(kind, data):
    check(kind, data.draw(lengths(kind)), seed=data.draw(st.integers(0, 9)))


@settings(deadline=None, max_examples=5)
@given(samples=lengths("even strides"))
def test_tiled_is_whole_file_in_the_formulation_of_a_cpu(samples):
    compare(chunked_codec(), whole_file("even strides"), samples)


@functools.cache
def chunked_codec() -> Codec:
    config = small_models.KINDS["even strides"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(formulation, "_MIN_CHUNKED_WIDTH", 0)
        codec = Codec(small_models.model(config), window_sizes=sizes_for(config))
    assert codec.engine.compiled.free_padding, "this is not the formulation that was meant"
    return codec


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ear_vae_44k", "ear_vae_v2_48k", "stable_audio_open", "ace_step_1.5"])
def test_published_architectures_as_a_cpu_runs_them(name, monkeypatch):
    """Their strides, transformer and CPU formulation, at a sixteenth of their width."""
    monkeypatch.setattr(formulation, "_MIN_CHUNKED_WIDTH", 0)
    values = json.loads((resources.files("earvae_jax.configs") / f"{name}.json").read_text())
    for half in ("encoder", "decoder"):
        values[half]["config"]["channels"] //= 16
    config = ModelConfig.from_dict(values)
    model = small_models.model(config)
    codec, whole = Codec(model, window_sizes=sizes_for(config)[:1]), whole_file_of(model)
    for samples in (1, codec.engine.encoder_tiling.sizes[0] * config.downsampling_ratio + 1, 150_000):
        compare(codec, whole, samples)


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_tiled_is_whole_file_at_any_batch_size(batch_size):
    check("even strides", 2500, batch_size)


@pytest.mark.parametrize("kind", ["even strides", "antialiased nearest, odd, without bias"])
def test_nothing_written_into_padding_reaches_an_output(kind, monkeypatch):
    """The same files with NaN wherever a window holds no audio."""
    config = small_models.KINDS[kind]
    ratio, (short, long) = config.downsampling_ratio, sizes_for(config)
    audio = np.random.default_rng(0).standard_normal(((long + short) * ratio + 5, 2), np.float32)
    codec = codec_of(kind)
    latents = codec.encode(audio)
    decoded = codec.decode(latents)
    poisoned = []

    def poison(self, cut, deliver):
        inside = np.arange(len(cut.values))
        outside = (inside < cut.start) | (inside >= cut.stop)
        poisoned.append(outside.sum())
        return add(self, cut._replace(values=np.where(outside[:, None], np.nan, cut.values)), deliver)

    add = Batcher.add
    monkeypatch.setattr(Batcher, "add", poison)
    again = codec.encode(audio)
    np.testing.assert_array_equal(again.mean, latents.mean)
    np.testing.assert_array_equal(again.std, latents.std)
    np.testing.assert_array_equal(codec.decode(latents), decoded)
    assert sum(poisoned) > 0


def test_many_lengths_compile_a_handful_of_programs():
    codec = Codec(
        small_models.model(small_models.KINDS["transformer"]),
        window_sizes=sizes_for(small_models.KINDS["transformer"]),
    )
    for samples in range(1, 4000, 217):
        codec.reconstruct(np.zeros((samples, 2), np.float32))
    compiled = codec.engine.compiled
    assert compiled._encode._cache_size() <= 2 and compiled._decode._cache_size() <= 2
    assert len(set(compiled._layers)) == 1 and compiled._layers[0]._cache_size() <= 3


def test_latents_are_cut_where_they_stand():
    latents = np.arange(300, dtype=np.float32)[:, None]
    for cut in cut_latents(latents, Tiling((64,), Reach(10, 10))):
        part = latents[cut.window.start : cut.window.start + 64]
        np.testing.assert_array_equal(cut.values[: len(part)], part)
        assert not cut.values[len(part) :].any()
        assert min(cut.stop, 64) == min(300 - cut.window.start, 64)


@pytest.mark.parametrize("kind", small_models.KINDS)
def test_every_model_has_windows_of_its_own(kind):
    """What a codec chooses without being told."""
    codec = Codec(small_models.model(small_models.KINDS[kind]))
    for tiling in (codec.engine.encoder_tiling, codec.engine.decoder_tiling):
        assert tiling.sizes[0] >= 2 * (sum(tiling.context) + 1)
        assert all(larger % smaller == 0 for smaller, larger in itertools.pairwise(tiling.sizes))


@given(
    windows=st.integers(1, 100),
    devices=st.integers(1, 4),
    size=st.sampled_from([64, 256, 1024]),
    in_latents=st.booleans(),
    few=st.booleans(),
)
def test_batches_hold_all_windows(windows, devices, size, in_latents, few):
    """Each is a multiple of the devices and none is larger than a full one; few programs are at most two."""
    options = {"largest": 1024 if in_latents else None, "few_programs": few}
    batch_size = BatchSize(2 * devices, devices, **options)
    full = batch_size.of(size)
    assert full == 2 * devices * (1024 // size if in_latents else 1)
    calls = batch_size.calls(windows, size)
    assert all(count % devices == 0 and count <= full for count in calls)
    spare = sum(count * runs for count, runs in calls.items()) - windows
    assert 0 <= spare < full
    if few:
        assert set(calls) <= {devices, full}


@given(samples=st.integers(1, 5000), block=st.integers(1, 5000))
def test_audio_is_cut_where_it_stands(samples, block):
    """Blocks of any length, some empty; what lies within one block is a view of it."""
    config = small_models.KINDS["even strides"]
    audio = np.arange(2 * samples, dtype=np.float32).reshape(-1, 2)
    blocks = [audio[start : start + block] for start in range(0, samples, block)]
    for cut in cut_audio([audio[:0], *blocks, audio[:0]], config, Tiling((64, 16), Reach(2, 2))):
        start = cut.window.start * config.downsampling_ratio
        part = audio[start : start + len(cut.values)]
        np.testing.assert_array_equal(cut.values[: len(part)], part)
        assert not cut.values[len(part) :].any()
        if len(part) == len(cut.values) and start // block == (start + len(part) - 1) // block:
            assert np.shares_memory(cut.values, audio)


def test_full_batches_are_not_padded():
    counts = []

    def run(values, start, stop):
        counts.append(len(values))
        return values

    batcher = Batcher(run, batch_size=BatchSize(3))
    cut = next(iter(cut_latents(np.zeros((4, 2), np.float32), Tiling((4,), Reach(1, 1)))))
    for _ in range(8):
        batcher.add(cut, lambda *_: None)
    batcher.flush()
    assert counts == [3, 3, 2]
