"""The report of programs that were not compiled here."""

import json

import pytest

from earvae_jax.targets.catalogue import Target
from earvae_jax.targets.compiling import Outcome
from earvae_jax.targets.floors import floor
from earvae_jax.targets.report import Report

H100 = Target.parse("h100x2")
GB = 10**9


def outcome(*, temporaries: int = 2 * GB) -> Outcome:
    made = Outcome()
    made.plan = {
        "subject": "encode song.wav with a model, bfloat16",
        "resident": {"weights": 3 * GB, "optimizer": GB},
        "programs": [{"name": "encode 1 × 1024 latents", "runs": 5}, {"name": "decode", "runs": 1}],
    }
    for name, held in (("encode 1 × 1024 latents", 3 * GB), ("decode", 2 * GB)):
        made.compiled[name] = {
            "held": held,
            "beside": GB // 4,
            "trace_seconds": 0.5,
            "compile_seconds": 12.25,
            "reading": {
                "memory": {
                    "arguments": 3 * GB,
                    "outputs": GB // 2,
                    "aliased": 0,
                    "temporaries": temporaries,
                    "code": 0,
                    "total": 3 * GB + GB // 2 + temporaries,
                },
                "kernels": 155,
                "bytes": 16_750_000_000,
                "exchanged": 0,
                "operations": {"bf16": 989.4e12},
                "kinds": [{"kind": "fusion: add", "kernels": 9, "bytes": GB}],
                "unknown_loops": 0,
            },
        }
    return made


def test_figures():
    report = Report(H100, outcome(), usable=60 * GB)
    values = report.to_dict()
    first = values["programs"][0]
    assert first["seconds_of_bytes"] == pytest.approx(16.75e9 / 3.35e12)
    assert first["seconds_of_products"] == pytest.approx(1.0)
    assert first["floor_seconds"] == pytest.approx(1.0)
    # Weights and optimizer, temporaries, results, arguments that are not resident, and another batch.
    assert values["memory"]["total"] == 3 * GB + GB + 2 * GB + GB // 2 + GB + GB // 4
    assert values["floor_seconds_of_all_runs"] == pytest.approx(6.0)
    assert values["memory"]["fits"]
    assert report.is_good
    assert json.loads(json.dumps(values)) == values


def test_words():
    text = Report(H100, outcome(), usable=60 * GB).text()
    row = "| encode 1 × 1024 latents | 5 | 155 | 16.75 | 989.400 | 5.00 | 1000.00 | 1000.00 | 2.00 | 12.2 |"
    assert row in text.splitlines()
    assert "2 × NVIDIA H100 80GB HBM3" in text
    assert "weights 3.00, optimizer 1.00, temporaries 2.00" in text
    assert "floor of all runs together: 6.00 s" in text
    assert "7.75 of the 60.0 that JAX hands out: fits" in text
    assert "Compiled, not run: a floor is" in text
    assert "never a speed" in text


def test_too_little_memory():
    report = Report(H100, outcome(temporaries=70 * GB), usable=60 * GB)
    assert not report.is_good
    assert "together 75.75 of the 60.0 that JAX hands out: does not fit" in report.text()


def test_programs_that_did_not_compile():
    made = outcome()
    del made.compiled["decode"]
    made.failed["decode"] = {"too_large": True, "message": "Used 17.50G of 15.75G hbm"}
    report = Report(H100, made, usable=60 * GB)
    assert not report.is_good
    assert not report.to_dict()["memory"]["fits"]
    assert "decode: does not fit: Used 17.50G of 15.75G hbm" in report.text()
    made.failed["decode"] = {"too_large": False, "message": "did not end in 2 s"}
    report = Report(H100, made, usable=60 * GB)
    assert not report.is_good
    assert "decode: did not end in 2 s" in report.text()
    assert "fits as far as it was compiled" in report.text()


def test_nothing_compiled():
    made = outcome()
    made.compiled.clear()
    made.failed = {name: {"too_large": False, "message": "hangs"} for name in made.names}
    assert "encode 1 × 1024 latents: hangs" in Report(H100, made, usable=60 * GB).text()


def test_the_largest():
    made = outcome()
    made.largest = [
        {"what": "--batch-size", "size": 0, "sizes_compiled": [4, 1], "compilations": 2},
        {"what": "data.crop_samples", "size": 4096, "sizes_compiled": [4096], "compilations": 1},
    ]
    made.stopped = "encode 9: did not end in 2 s"
    text = Report(H100, made, usable=60 * GB).text()
    assert "largest --batch-size that fits: none, not even 1 (found with 2 further compilations)" in text
    assert "largest data.crop_samples that fits: 4096" in text
    assert "the search for the largest size stopped: encode 9: did not end in 2 s" in text


def test_notes():
    made = outcome()
    made.compiled["decode"]["reading"] |= {"unknown_loops": 2, "exchanged": 1_250_000_000}
    text = Report(H100, made, usable=60 * GB).text()
    assert "decode: 2 loops turn as the input says, and count once" in text
    assert "decode: moves 1.25 GB to exchange with others" in text


def test_a_floor_of_unknown_products_takes_the_slowest_units():
    accelerator = H100.accelerator
    assert floor(accelerator, 0, {"f64": 66.9e12}) == pytest.approx(1.0)
    assert floor(accelerator, 3.35e12, {}) == pytest.approx(1.0)
