"""The table beside diffusers is right: at a small size, and where the whole file does not fit."""

import contextlib
import json
import re

import numpy as np
import pytest
import small_models
from tolerances import TILED

from earvae_jax import checkpoints
from earvae_jax.convert import to_torch
from earvae_jax.errors import UserError
from earvae_jax.infer.benchmark import beside_diffusers, one_process
from earvae_jax.infer.benchmark.models import named_model
from earvae_jax.infer.benchmark.one_process import OURS, WHOLE
from earvae_jax.infer.benchmark.one_process import TILED as IN_TILES

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIG = small_models.config((8, 8), channels=8, latent_dim=4, tied_activations=False, std_offset=1e-4)


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "small.json"
    path.write_text(json.dumps(CONFIG.to_dict()))
    return path


def cells(table):
    """The rows by stage and contender."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if "|" in line]
    return {(row[0], row[1]): row[2:] for row in rows if row[0] in ("encode", "decode")}


def test_command(config_file, capsys, monkeypatch):
    """40 s are two tiles of diffusers' encoder; 8 kHz and 64 samples a latent make both tilings exact."""
    pytest.importorskip("diffusers")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    beside_diffusers.main(["--config", str(config_file), "--seconds", "40", "--repeats", "2"])
    said = capsys.readouterr().out
    assert "small, float32, at most" in said and "5000 latents, 2 turns" in said
    rows = cells(said)
    assert set(rows) == {(stage, who) for stage in ("encode", "decode") for who in (OURS, WHOLE, IN_TILES)}
    for (stage, who), (times, processors, speed, ratio, peak, length, off) in rows.items():
        median, low, high = map(float, re.findall(r"[\d.]+", times))
        assert low <= median <= high and float(processors) > 0 and float(speed) > 0 and int(peak) > 50
        assert int(length) == (5000 if stage == "encode" else 320_000)
        assert (float(ratio) == 1) if who == OURS else float(ratio) > 0
        assert off == "" if who == WHOLE else float(off) <= TILED


def test_it_names_what_it_needs(monkeypatch):
    monkeypatch.setattr(beside_diffusers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="run: pip install diffusers"):
        beside_diffusers.main(["--seconds", "1"])


def test_a_contender_without_memory_says_so(tmp_path):
    def fail(values):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nat some place")

    np.save(tmp_path / "in.npy", np.zeros(3))
    said = one_process.answer({"encode": one_process.Stage(fail)}, "encode", str(tmp_path / "in.npy"))
    assert said == {"failed": "DefaultCPUAllocator: can't allocate memory"}


@pytest.fixture
def stages(tmp_path):
    """What the three processes compute, in this one; the whole file does not fit."""
    pytest.importorskip("diffusers")
    checkpoints.save(tmp_path / "ours.safetensors", small_models.model(CONFIG))
    to_torch.export(tmp_path / "ours.safetensors", tmp_path / "theirs", layout="diffusers")
    whole, about = one_process._diffusers(str(tmp_path / "theirs"), tiled=False)

    def short(stage, longest):
        def run(values):
            if len(values) > longest:
                raise MemoryError
            return whole[stage].run(values)

        return one_process.Stage(run)

    return {
        OURS: one_process._codec(str(tmp_path / "ours.safetensors")),
        WHOLE: ({"encode": short("encode", 64_000), "decode": short("decode", 1000)}, about),
        IN_TILES: one_process._diffusers(str(tmp_path / "theirs"), tiled=True),
    }


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [False, True])
def test_without_the_whole_file_stretches_of_it_are_compared(tmp_path, monkeypatch, stages, wrong):
    @contextlib.contextmanager
    def process(self, name):
        made, about = stages[name]

        def call(**values):
            return one_process.answer(made, **values) if values else about

        yield call

    if wrong:  # one latent, where two tiles meet near the middle
        made, _ = stages[IN_TILES]
        run = made["encode"].run

        def spoiled(audio):
            latents = run(audio).copy()
            latents[9750] += 1  # the third of the borders, which lie 3250 apart
            return latents

        made["encode"] = one_process.Stage(spoiled)
    monkeypatch.setattr(beside_diffusers.Measurement, "_process", process)
    measurement = beside_diffusers.Measurement(CONFIG, tmp_path, 18_750, 0)  # 150 s
    table = measurement.table(["encode", "decode"], 1)
    rows = cells(table)
    for stage in ("encode", "decode"):
        assert rows[stage, WHOLE][0] == "does not fit"
        assert f"{WHOLE}, {stage}: MemoryError" in table
        assert float(rows[stage, OURS][-1]) <= TILED
    off = rows["encode", IN_TILES][-1]
    assert off.endswith(", 1 wrong") if wrong else float(off) <= TILED
    assert float(rows["decode", IN_TILES][-1]) <= TILED


@pytest.mark.parametrize("name", ["stable_audio_open.json", "ace_step_1.5.json", "yue2.json", "gone.json"])
def test_bundled_configs_by_name(name, monkeypatch):
    from earvae_jax.infer.benchmark import models

    monkeypatch.setattr(models, "EarVAE", lambda config, rngs: config)
    if name == "gone.json":
        with pytest.raises(UserError, match=r"gone\.json: no such config file; the bundled .*yue2\.json"):
            named_model(None, name)
    else:
        stem, config = named_model(None, name)
        assert stem == name.removesuffix(".json") and not config.encoder.tied_activations
