"""`python -m tools.card`: its parts run, small; what fails or does not fit is named, and the others run."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import jax
import pytest
from places import ROOT

sys.path.append(str(ROOT))  # `tools` is no part of the package

from earvae_jax.errors import UserError
from earvae_jax.infer.engine.tiling import Tiling
from earvae_jax.model.config import ModelConfig
from earvae_jax.receptive_field import decoder_context, encoder_context
from tools.card import __main__ as card
from tools.card import packages, running, sizes, tables
from tools.card.parts import PARTS, Part
from tools.card.running import DONE, FAILED, NOT_RUN, OUT_OF_TIME, Outcome
from tools.card.targets import targets

MACHINE = {
    "machine": {"processor": "a processor", "cores": 2},
    "platform": "gpu",
    "device": "some card",
    "devices": 1,
    "memory": 60 << 30,
    "system": "Linux",
    "driver": {"driver_version": "580"},
    "versions": {"jax": "0.11.0"},
    "without": ["diffusers"],
}


def stub(name: str, program: str, **options) -> Part:
    """A part that is a program of a line or two, to which `out` is the file to write."""

    def words(place, output: Path) -> list[str]:
        return [sys.executable, "-c", f"out = {str(output)!r}\n{program}"]

    return Part(name, f"the part {name}", words, **options)


def writes(**result) -> str:
    return f"open(out, 'w').write({json.dumps(result)!r})"


GOOD = stub("good", writes(passed=True))
WRONG = stub("wrong", writes(passed=False))
BROKEN = stub("broken", "import sys; sys.exit('error: no such kernel')")
SLOW = stub("slow", "import time; time.sleep(60)", limit=1.0)
LONG = stub("long", writes(), least=1e6)
NEEDY = stub("needy", writes(), needs=("torch", "diffusers"))


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the program with other parts; gives its status, and what it kept by part."""

    def run(*parts: Part, machine=MACHINE, words=()) -> tuple[int, dict[str, dict], str]:
        monkeypatch.setattr(running, "MACHINE", stub("machine", writes(**machine)))
        monkeypatch.setattr(card, "PARTS", parts)
        monkeypatch.setattr(tables, "targets", lambda results: [])
        status = card.main(["--output-dir", str(tmp_path / "card"), *words])
        kept = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "card/parts").glob("*.json")}
        return status, kept, (tmp_path / "card" / "tables.md").read_text()

    return run


def test_all_that_fails_is_named_and_the_others_run(run):
    started = time.monotonic()
    status, kept, page = run(BROKEN, SLOW, WRONG, LONG, NEEDY, GOOD)
    assert status == 1 and time.monotonic() - started < 40  # the slow one is ended
    assert {name: values["status"] for name, values in kept.items()} == {
        "broken": FAILED,
        "slow": OUT_OF_TIME,
        "wrong": DONE,
        "good": DONE,
    }
    for row in (
        "| broken | the part broken | failed | {s} | no such kernel |",
        "| slow | the part slow | out of time | {s} | it was ended after 1 s |",
        "| wrong | the part wrong | done, DOES NOT HOLD | {s} |  |",
        "| needy | the part needy | not run |  | not installed: diffusers |",
        "| good | the part good | done, holds | {s} |  |",
    ):
        seconds = kept.get(row.split()[1], {}).get("seconds", 0)
        assert row.format(s=f"{seconds:.0f}" if seconds else "") in page
    assert "| long | the part long | not run |  | 5" in page and "it takes 1000000 or more" in page
    assert "Not installed, so not measured: diffusers." in page


def test_what_is_done_is_kept(run, tmp_path):
    counts = stub("counts", f"open({str(tmp_path / 'count')!r}, 'a').write('x'); {writes()}")
    assert run(counts)[0] == 0
    status, _, page = run(counts)
    assert status == 0 and "| counts | the part counts | done, kept |" in page
    assert (tmp_path / "count").read_text() == "x"
    assert run(counts, words=["--again"])[0] == 0
    assert (tmp_path / "count").read_text() == "xx"
    run(counts, machine=MACHINE | {"device": "another card"})  # of which nothing is known yet
    assert (tmp_path / "count").read_text() == "xxx"
    run(counts, machine=MACHINE | {"device": "another card"}, words=["--small"])
    assert (tmp_path / "count").read_text() == "xxxx"


def test_what_failed_is_run_again(run, tmp_path):
    mark = tmp_path / "mark"
    flaky = stub(
        "flaky",
        f"import os, sys\nif not os.path.exists({str(mark)!r}): sys.exit('error: not yet')\n{writes()}",
    )
    assert run(flaky)[0] == 1
    mark.touch()
    assert run(flaky)[0] == 0


def test_a_part_leaves_nothing_running(run, tmp_path):
    mark = tmp_path / "alive"
    child = f"import time; time.sleep(1); open({str(mark)!r}, 'w')"
    run(
        stub(
            "parent",
            f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); {writes()}",
        )
    )
    time.sleep(1.5)
    assert not mark.exists()


def test_a_machine_without_an_accelerator(run):
    with pytest.raises(UserError, match=r"no accelerator here: install .*--small tries this program"):
        run(GOOD, machine=MACHINE | {"platform": "cpu"})


def test_missing_packages_are_named_before_anything_imports_them(run, monkeypatch):
    needed = {"no_such.module": "no-such", "json": "json", "nor_this": "nor-this"}
    monkeypatch.setattr(packages.missing, "__defaults__", (needed,))
    with pytest.raises(UserError, match=r"run: pip install no-such nor-this$"):
        run(GOOD, machine=MACHINE)


def test_what_parts_import_is_looked_for():
    """Every package that the project's own list of dependencies names, but for what says what is missing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {re.split(r"[<>=!~\[]", each)[0] for each in project["dependencies"]}
    assert named - set(packages.NEEDED.values()) == {"jax", "numpy", "absl-py", "huggingface-hub"}


def test_a_long_file_is_whole_windows(tmp_path):
    """Several of the largest, one after the other, and nothing beyond the end of the last."""
    (part,) = (part for part in PARTS if part.name == "benchmark-bfloat16-long")
    words = part.words(running.Place(tmp_path, small=False), tmp_path / "out.json")
    assert "--batch-size" not in words
    config = ModelConfig.from_dict(sizes.model_values(sizes.CONFIG, small=False))
    latents = float(words[words.index("--seconds") + 1]) * config.sample_rate / config.downsampling_ratio
    for context in (encoder_context(config), decoder_context(config)):
        windows = Tiling((1024,), context).plan(int(latents))
        assert len(windows) == 8 and windows[-1].size - (latents - windows[-1].start) < 64


@pytest.mark.parametrize(
    "words", [[], ["--output-dir", "x", "--budget", "0"], ["--output-dir", "x", "--only", "no"]]
)
def test_a_wrong_call(words, capsys):
    with pytest.raises(SystemExit) as ended:
        card.main(words)
    assert ended.value.code == 2


def test_parts_are_called_as_programs_understand(tmp_path):
    """The full versions, whose words no test runs."""
    place = running.Place(tmp_path, small=False)
    for part in PARTS:
        program, *words = part.words(place, tmp_path / "out.json")
        assert program == sys.executable and words[0] == "-m"
        if words[1] == "earvae_jax":
            from earvae_jax import command

            assert command._parse(["earvae", *words[2:]]).json == str(tmp_path / "out.json")
    names = [part.name for part in PARTS]
    assert len(set(names)) == len(names)
    assert sum(part.least for part in PARTS) < card._BUDGET * 2 and all(part.limit < 600 for part in PARTS)


def benchmark(name, dtype, rows, **more):
    stages = [
        {
            "contender": contender,
            "stage": stage,
            "median": median,
            "fastest": median,
            "slowest": median,
            "realtime": 20 / median,
            "compile_seconds": 1.0,
        }
        for contender, median in rows.items()
        for stage in ("encode", "decode", "round trip")
    ]
    memory = {"earvae-jax": 5_000_000_000}
    common = {"model": name, "dtype": dtype, "audio_seconds": 20.0, "device_memory": memory, "left_out": {}}
    return {**common, "rows": stages, **more}


def results():
    """Of all kinds of parts, as they would come from a card."""
    distance = {"largest": 1e-6, "relative": 2e-6, "bound": 5e-6, "passed": True}
    fast = {f"{stage}_{what}": 0.25 for stage in ("encode", "decode") for what in ("seconds", "of_peak")}
    row = {"dtype": "bfloat16", "formulation": "auto", "batch": 6, "latents": 1024, "realtime": 4321.0}
    row |= {**fast, "encode_bytes": 9e9, "decode_bytes": 9e9, "round_trip_of_peak": 0.61}
    return {
        "parity": {"rows": [{"dtype": "tf32", "part": "mean", "torch": 3e-6, **distance}], "passed": True},
        "windows": {"rows": [{"part": "std", **distance}], "passed": True},
        "step": {
            "rows": [{"part": part, **distance} for part in ("loss", "kl", "gradients")],
            "passed": True,
        },
        "fused": {
            "interpreted": False,
            "passed": False,
            "rows": [
                {"dtype": "bfloat16", "channels": 128, "plain": 1e-3, "fused": 2e-3, "passed": True}
                | {"plain_seconds": 0.004, "fused_seconds": 0.0025},
                {"dtype": "tf32", "channels": 64, "plain": 1e-3, "failed": "no registers", "passed": False},
            ],
        },
        "tails": {
            "interpreted": False,
            "passed": True,
            "rows": [
                {"channels": 128, "steps": 64, "written": 32, "warps": 4, "used": True, "seconds": 0.0005}
                | {"relative": 2e-3, "bound": 5e-3, "passed": True},
                {
                    "channels": 128,
                    "steps": 64,
                    "written": 64,
                    "warps": 8,
                    "used": False,
                    "failed": "no memory",
                }
                | {"passed": True},
            ],
        },
        "benchmark-bfloat16": benchmark("m", "bfloat16", {"earvae-jax": 0.01}),
        "benchmark-bfloat16-compile": benchmark("m", "bfloat16", {"earvae-jax": 0.01, "torch.compile": 0.03}),
        "calls": {
            "latents": 1024,
            "rows": [{"call": "encode", "median": 0.011, "fastest": 0.01, "slowest": 0.0125}],
        },
        "benchmark-float32": benchmark("m", "float32", {"earvae-jax": 0.02, "torch eager": 0.13}),
        "benchmark-tf32-long": benchmark("m", "tf32", {"earvae-jax": 1}, left_out={"torch": "it is missing"}),
        "roofline": {
            "matrix_peak": {"bfloat16": 7.9e14},
            "bandwidth": 3e12,
            "rows": [
                row,
                row | {"formulation": "fused", "round_trip_of_peak": 0.9},
                {**row, "failed": "too wide"},
            ],
        },
        "training-bfloat16": {
            "train_44k, adversarial": {"jax_seconds": 0.1, "torch_seconds": 0.17, "speedup": 1.7}
            | {"jax_crops": 40.0, "torch_crops": 23.5, "jax_compile_seconds": 60.0}
        },
        "song": {"audio_seconds": 600, "dtype": "bfloat16", "first_seconds": 9.0, "seconds": 5.5}
        | {"realtime": 109.0, "computing_share": 0.43},
        "start": {"audio_seconds": 5, "first_seconds": 30.0, "second_seconds": 6.5, "programs": 37},
    }


def test_the_tables_hold_everything():
    outcomes = [Outcome(name, f"part {name}", DONE, 10.0, result=found) for name, found in results().items()]
    page = tables.page(MACHINE, outcomes)
    assert "Not measured." not in page and "not measured |" not in page
    for words in (
        "1 × some card (driver_version 580), Linux.",
        "| round trip in bfloat16 against torch eager in float32 | 11.00 × | 13.00 × | reached |",
        "| round trip in bfloat16 against torch.compile in bfloat16 | 2.00 × | 3.00 × | reached |",
        "| round trip in float32 against torch eager in float32 | 5.00 × | 6.50 × | reached |",
        "| share of the bfloat16 matrix peak in a round trip | 50% | 61% | reached |",
        "| training step in bfloat16 against torch | 1.50 × | 1.70 × | reached |",
        "| against float64, tf32 | mean | 2.0e-06 | 3.0e-06 | 5.0e-06 | holds |",
        "| windows against the whole file | std | 1.0e-06 of the peak | – | 5.0e-06 | holds |",
        "the furthest of 2 terms",
        "| training step against the CPU's | gradients | 2.0e-06 |",
        "| bfloat16 | 128 | 1.0e-03 | 2.0e-03 | 4.000 | 2.500 | holds |",
        "| tf32 | 64 |  | failed: no registers |",
        "| 128 | 64 | 32 | 4 | yes | 0.500 | 2.0e-03 | holds |",
        "| 128 | 64 | 64 | 8 |  | failed: no memory |",
        "| m | bfloat16 | 20 | round trip | torch.compile | 0.0300 (0.0300–0.0300) | 667 | 3.00 | 1.0 |",
        "| m | tf32 | 20 |",
        "benchmark-tf32-long: torch is left out: it is missing",
        "| encode | 11.00 | 10.00 | 12.50 |",
        "Matrix peak in TFLOP/s: bfloat16 790.0. Bandwidth: 3.00 TB/s.",
        "| bfloat16 | auto | 6 | 1024 | encode | 250.00 | 25% | 9.0 | 1% |",
        "failed: too wide",
        "| train_44k, adversarial | bfloat16 | 0.100 | 0.170 | 1.700 | 40.000 | 23.500 | 60.000 |",
        "9.0 s at a first start, 5.5 s at the next (109 × real time); the card computes in 43% of the time",
        "30.0 s with an empty cache, 6.5 s with its 37 programs there",
    ):
        assert words in page, words
    for line in page.splitlines():
        assert "None" not in line and "nan" not in line


def test_targets_that_are_missed_or_unknown():
    assert [target.cells[3] for target in targets({})] == [""] * 5
    found = results()
    slow = {"earvae-jax": 0.02, "torch.compile": 0.03}
    for name in ("benchmark-bfloat16", "benchmark-bfloat16-compile"):
        found[name] = benchmark("m", "bfloat16", slow)
    assert [target.cells[3] for target in targets(found)] == [
        "missed",
        "missed",
        "reached",
        "reached",
        "reached",
    ]


def test_nothing_done_has_tables_too():
    page = tables.page(MACHINE, [Outcome("parity", "x", NOT_RUN, reason="0 s were left")])
    assert page.count("Not measured.") == 8 and "0 s were left" in page


def run_small(folder: Path, *names: str) -> dict[str, Outcome]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    words = ["--small", "--budget", "550", "--output-dir", str(folder), "--only", *names]
    done = subprocess.run(
        [sys.executable, "-m", "tools.card", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    page = (folder / "tables.md").read_text()
    found = {}
    for name in names:
        assert f"| {name} |" in page
        found[name] = Outcome(**json.loads((folder / "parts" / f"{name}.json").read_text()))
        assert dataclasses.replace(found[name], result={}).status == DONE and found[name].result
    return found


def test_small_parts(tmp_path):
    found = run_small(tmp_path, "fused", "tails", "calls")
    rows = found["fused"].result["rows"]
    assert found["fused"].result["interpreted"] and {row["dtype"] for row in rows} == {"bfloat16", "float32"}
    assert {"round trip", "audio to the card"} < {row["call"] for row in found["calls"].result["rows"]}
    assert found["tails"].result["interpreted"] and found["tails"].result["rows"][0]["used"]


@pytest.mark.slow
def test_the_other_small_parts(tmp_path):
    """With one of each kind of benchmark."""
    pytest.importorskip("diffusers")
    names = ["parity", "windows", "roofline", "song", "start", "step"]
    names += ["benchmark-float32", "diffusers-float32"]
    found = run_small(tmp_path, *names)
    assert {row["dtype"] for row in found["parity"].result["rows"]} == {"float32", "tf32", "bfloat16"}
    assert found["parity"].result["truth"] == "torch in float64"
    assert 0 < found["song"].result["computing_share"] <= 1
    contenders = {row["contender"] for row in found["diffusers-float32"].result["rows"]}
    assert contenders == {"earvae-jax", "torch eager", "diffusers"}
    rows = found["roofline"].result["rows"]
    assert {(row["dtype"], row["formulation"]) for row in rows if "failed" not in row} == {
        ("bfloat16", "auto"),
        ("float32", "auto"),
        ("tf32", "auto"),
    }
    assert all("this is a CPU" in row["failed"] for row in rows if "failed" in row)
    page = (tmp_path / "tables.md").read_text()
    assert page.count("Not measured.") == 4  # those of parts that other tests run


TRACE = """
planes {{ name: "/host:CPU"
  lines {{ name: "tf_XLAEigen/1" events {{ offset_ps: 0 duration_ps: 9000000000000 }} }} }}
planes {{ name: "{device}"
  lines {{ name: "Stream #13(Compute)"
    events {{ offset_ps: 1000000000000 duration_ps: 2000000000000 }}
    events {{ offset_ps: 5000000000000 duration_ps: 1000000000000 }} }}
  lines {{ name: "XLA Ops" events {{ offset_ps: 2000000000000 duration_ps: 2000000000000 }} }}
  lines {{ name: "Stream #14(MemcpyH2D)" events {{ offset_ps: 0 duration_ps: 500000000000 }} }}
  lines {{ name: "Steps" events {{ offset_ps: 0 duration_ps: 9000000000000 }} }} }}
"""


@pytest.mark.parametrize(
    ("device", "expected"), [("/device:GPU:0", (4.0, 0.5)), ("/host:metadata", (9.0, None))]
)
def test_how_long_a_card_computes(device, expected, tmp_path):
    """What several lines show at once counts once; without a card the threads of XLA are looked at."""
    from tools.card.measured.song import busy_seconds

    trace = tmp_path / "a.xplane.pb"
    text = TRACE.format(device=device)
    trace.write_bytes(jax.profiler.ProfileData.text_proto_to_serialized_xspace(text))
    assert busy_seconds(trace) == pytest.approx(expected)
