"""A device without memory for a batch gets half of it, once, with a line; nothing is lost."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from tolerances import TILED

from earvae_jax.audio.reader import read
from earvae_jax.audio.writer import write
from earvae_jax.infer import Codec
from earvae_jax.infer.engine import engine
from earvae_jax.infer.engine.batching import Batcher, BatchSize
from earvae_jax.infer.engine.compiled import CompiledModel
from earvae_jax.infer.engine.cutting import Cut
from earvae_jax.infer.engine.tiling import Window
from earvae_jax.infer.latent_sets.records import STATISTICS

pytestmark = pytest.mark.usefixtures("quick_compilation")
NO_MEMORY = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4294967296 bytes.\nand more"
LINE = "warning: out of memory with 4 windows at a time: going on with 2; --batch-size 2 begins with them"


class Late:
    """A result that is found to be missing when it is read, as of a program that runs in the background."""

    def __array__(self, *_, **__):
        raise jax.errors.JaxRuntimeError(NO_MEMORY)


def device(most: int, *, late: bool, sizes: list[int]):
    """A program that computes at most so many windows."""

    def run(values, start, stop):
        sizes.append(len(values))
        if len(values) > most:
            if late:
                return Late()
            raise jax.errors.JaxRuntimeError(NO_MEMORY)
        return jnp.asarray(values) * 2

    return run


def cuts(count: int) -> list[Cut]:
    return [Cut(Window(i, 1, i, i + 1), np.full((1, 1), float(i), np.float32), 0, 1) for i in range(count)]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("count", [1, 4, 7, 8, 13])
def test_every_window_comes_back_once(late, in_flight, count):
    found, sizes = {}, []
    batcher = Batcher(device(2, late=late, sizes=sizes), batch_size=BatchSize(4), in_flight=in_flight)
    for cut in cuts(count):
        batcher.add(
            cut, lambda cut, result: found.setdefault(cut.window.start, []).append(float(result[0, 0]))
        )
    batcher.flush()
    assert found == {i: [2.0 * i] for i in range(count)}
    assert sizes.count(4) <= in_flight  # what was on its way already


def test_a_smaller_batch_that_waits_goes_in_parts():
    """Windows of another size, more of them than half a batch, waited when the memory ran out."""
    sizes: list[int] = []
    batcher = Batcher(device(2, late=False, sizes=sizes), batch_size=BatchSize(4))
    others = [Cut(Window(9, 2, 9, 11), np.zeros((2, 1), np.float32), 0, 2)] * 3
    found = []
    for cut in [*others, *cuts(4)]:
        batcher.add(cut, lambda cut, _: found.append(cut.window.size))
    batcher.flush()
    assert sorted(found) == [1] * 4 + [2] * 3 and max(sizes[1:]) == 2


@pytest.mark.parametrize("late", [False, True])
def test_once_only(late):
    sizes: list[int] = []
    batcher = Batcher(device(1, late=late, sizes=sizes), batch_size=BatchSize(4))
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        for cut in cuts(4):
            batcher.add(cut, lambda *_: None)
        batcher.flush()
    assert sizes == [4, 2]


@pytest.mark.parametrize("late", [False, True])
def test_a_batch_that_is_not_full_is_halved_itself(late, caplog):
    """Half of a full batch would be as many windows again."""
    sizes: list[int] = []
    batcher = Batcher(device(2, late=late, sizes=sizes), batch_size=BatchSize(8))
    found = []
    for cut in cuts(3):
        batcher.add(cut, lambda cut, _: found.append(cut.window.start))
    batcher.flush()
    assert found == [0, 1, 2] and sizes == [4, 2, 1]
    assert "with 4 windows at a time: going on with 2" in caplog.text


def test_other_errors_are_none_of_its_business():
    def run(values, start, stop):
        raise RuntimeError("INTERNAL: broken")

    batcher = Batcher(run, batch_size=BatchSize(2))
    with pytest.raises(RuntimeError, match="broken"):
        for cut in cuts(2):
            batcher.add(cut, lambda *_: None)


@pytest.mark.parametrize(("windows", "devices", "half"), [(12, 4, 4), (8, 8, None), (1, 1, None), (5, 1, 2)])
def test_every_device_keeps_its_share(windows, devices, half):
    size = BatchSize(windows, devices)
    error = RuntimeError(NO_MEMORY)
    if half is None:
        with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
            size.halve(error, windows, 64)
    else:
        size.halve(error, windows, 64)
        assert size.of(64) == size.of(1024) == half and half % devices == 0


def test_half_of_a_batch_of_small_windows(caplog):
    """They are halved, and no batch of larger windows becomes larger than it was; no flag is advised."""
    size = BatchSize(2, 2, largest=1024)
    assert (size.of(1024), size.of(256), size.of(64)) == (2, 8, 32)
    size.halve(RuntimeError(NO_MEMORY), 8, 256)
    assert (size.of(1024), size.of(256), size.of(64)) == (2, 4, 16)
    assert "out of memory with 8 windows at a time: going on with 4" in caplog.text
    assert "--batch-size" not in caplog.text
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        size.halve(RuntimeError(NO_MEMORY), 4, 256)


def values_of(path: Path) -> np.ndarray:
    return np.load(path)["mean"] if path.suffix == ".npz" else read(path)[0]


@pytest.mark.parametrize("command", ["encode", "decode", "reconstruct"])
def test_commands_go_on(command, earvae, small_checkpoint, tmp_path, monkeypatch):
    """One line, status 0, and the same output as with memory enough."""
    rate, ratio = small_models.SAMPLE_RATE, small_models.KINDS["even strides"].downsampling_ratio
    for name in ("one", "two"):
        samples = 300 * ratio if name == "one" else 250 * ratio
        audio = 0.1 * np.random.default_rng(0).standard_normal((samples, 2)).astype(np.float32)
        write(tmp_path / "songs" / f"{name}.wav", audio, rate)
    flags = ("--checkpoint", small_checkpoint, "--batch-size", 4)
    assert earvae("encode", tmp_path / "songs", *flags, "--output-dir", tmp_path / "latents")[0] == 0
    given = tmp_path / ("latents" if command == "decode" else "songs")
    monkeypatch.setattr(engine, "sizes_for", lambda *_: (64,))
    assert earvae(command, given, *flags, "--output-dir", tmp_path / "enough")[0] == 0

    def narrow(run):
        def narrowed(self, values, start, stop):
            if len(values) > 2:
                raise jax.errors.JaxRuntimeError(NO_MEMORY)
            return run(self, values, start, stop)

        return narrowed

    for half in ("encode", "decode"):
        monkeypatch.setattr(CompiledModel, half, narrow(getattr(CompiledModel, half)))
    status, lines = earvae(command, given, *flags, "--output-dir", tmp_path / "little")
    assert status == 0 and [line for line in lines if "memory" in line] == [LINE]
    made = sorted(path for path in (tmp_path / "little").iterdir() if path.name != STATISTICS)
    assert [path.stem for path in made] == ["one", "two"]
    for path in made:
        ours, theirs = values_of(path), values_of(tmp_path / "enough" / path.name)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TILED * np.abs(theirs).max())
    # Another that runs out of memory with the half ends as before, with one line.
    status, lines = earvae(command, given, *flags[:2], "--batch-size", 12, "--output-dir", tmp_path / "none")
    assert status == 1 and "a smaller --batch-size" in lines[-1]


def test_a_codec_remembers(monkeypatch):
    codec = Codec(small_models.model(small_models.KINDS["even strides"]), batch_size=4, window_sizes=(64,))
    sizes = []
    encode = codec.engine.compiled.encode

    def narrow(values, start, stop):
        sizes.append(len(values))
        if len(values) > 2:
            raise jax.errors.JaxRuntimeError(NO_MEMORY)
        return encode(values, start, stop)

    monkeypatch.setattr(codec.engine.compiled, "encode", narrow)
    audio = np.zeros((codec.config.downsampling_ratio * 300, 2), np.float32)
    for _ in range(2):
        codec.encode(audio)
    assert sizes.count(4) == 1 and codec.engine.batch_size.of(64) == 2
