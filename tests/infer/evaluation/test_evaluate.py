"""`earvae evaluate`: pairing files, the published results, and everything that can be wrong with input."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
import soundfile

from earvae_jax.errors import UserError
from earvae_jax.infer.commands import evaluate as evaluate_command
from earvae_jax.infer.evaluation import evaluate
from earvae_jax.infer.evaluation.pairs import find_models
from earvae_jax.signal.metrics import evaluate_pair

pytestmark = pytest.mark.usefixtures("quick_compilation")

RATE = 44_100
PUBLISHED_KEYS = [
    "model_name",
    "file_count",
    "avg_sisdr",
    "avg_mel_distance",
    "avg_stft_distance",
    "avg_per_channel_coherence",
    "avg_interchannel_coherence",
    "avg_gen_lufs-i",
    "avg_gen_lra",
    "avg_gen_true_peak",
    "avg_gt_lufs-i",
    "avg_gt_lra",
    "avg_gt_true_peak",
]


def noise(seed: int, samples: int = 30_000, channels: int = 2) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((samples, channels))


def write(path, audio, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate)


def call(*words: str) -> int:
    """The exit status of the command, without a report unless it is asked for."""
    import argparse

    parser = argparse.ArgumentParser()
    evaluate_command.add_arguments(parser)
    words = [*map(str, words)]
    return evaluate_command.run(
        parser.parse_args(words if "--report-files" in words else [*words, "--report-files", "0"])
    )


def results(folder) -> dict:
    return json.loads((folder / evaluate.RESULTS).read_text())


def rows(folder) -> dict[str, dict[str, str]]:
    with (folder / evaluate.TABLE).open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_published_layout_gives_the_published_files(tmp_path):
    originals = {name: noise(seed) for seed, name in enumerate(("one", "two"))}
    for seed, (name, audio) in enumerate(originals.items(), start=10):
        write(tmp_path / f"{name}.wav", audio)
        write(tmp_path / f"{name}_vae_rec.wav", audio + 0.3 * noise(seed))
    assert call(tmp_path) == 0
    summary = results(tmp_path)
    assert list(summary)[: len(PUBLISHED_KEYS)] == PUBLISHED_KEYS
    assert summary["model_name"] == tmp_path.name
    assert summary["file_count"] == 2
    each = [
        evaluate_pair(
            *(soundfile.read(tmp_path / f"{name}{end}.wav", dtype="float32")[0] for end in ("", "_vae_rec")),
            RATE,
        )
        for name in originals
    ]
    assert summary["avg_sisdr"] == pytest.approx(np.mean([values["si_sdr"] for values in each]))
    assert summary["avg_gt_true_peak"] == pytest.approx(
        np.mean([values["original_true_peak"] for values in each])
    )
    assert float(rows(tmp_path)["two"]["icpc"]) == each[1]["icpc"]
    text = (tmp_path / evaluate.SUMMARY).read_text()
    assert f"avg_sisdr: {summary['avg_sisdr']}\n" in text
    assert not (tmp_path / "report.html").exists()


def test_a_folder_of_models_is_evaluated_model_by_model(tmp_path):
    for seed, model in enumerate(("first", "second")):
        write(tmp_path / "in" / model / "a.wav", noise(seed))
        write(tmp_path / "in" / model / "a_vae_rec.wav", noise(seed) * 0.5)
    assert call(tmp_path / "in") == 0
    assert results(tmp_path / "in" / "second")["model_name"] == "second"
    assert call(tmp_path / "in", "--output-dir", tmp_path / "out") == 0
    assert results(tmp_path / "out" / "first")["file_count"] == 1


def test_two_folders_are_matched_by_relative_name(tmp_path):
    for name in ("a.wav", "deep/b.flac", "deep/c.wav"):
        write(tmp_path / "originals" / name, noise(1))
    for name in ("a.flac", "deep/b.wav", "deep/c_vae_rec.wav"):
        write(tmp_path / "made" / name, noise(2))
    assert call(tmp_path / "originals", tmp_path / "made", "--output-dir", tmp_path / "out") == 0
    assert set(rows(tmp_path / "out")) == {"a", "deep/b", "deep/c"}


def test_the_same_ending_decides_between_originals_of_one_name(tmp_path):
    for name in ("a.wav", "a.flac", "b.wav", "b.flac"):
        write(tmp_path / "originals" / name, noise(1))
    for name in ("a.flac", "b.ogg"):
        write(tmp_path / "made" / name, noise(1))
    (model,) = find_models(tmp_path / "originals", tmp_path / "made")
    assert [pair.original.name for pair in model.pairs] == ["a.flac"]
    assert "b.flac or b.wav" in model.unpaired["b.ogg"]
    assert model.unpaired["a.wav"] == "has no reconstruction"


def test_two_files(tmp_path):
    write(tmp_path / "a.wav", noise(1))
    write(tmp_path / "made.wav", noise(1))
    assert call(tmp_path / "a.wav", tmp_path / "made.wav", "--output-dir", tmp_path / "out") == 0
    assert results(tmp_path / "out")["model_name"] == "made"


def test_other_rates_are_resampled_and_lengths_trimmed_and_said_so(tmp_path):
    time = np.arange(96_000) / 48_000
    tone = 0.2 * np.stack([np.sin(2 * np.pi * 441 * time), np.sin(2 * np.pi * 1000 * time)], axis=1)
    write(tmp_path / "a.wav", tone, 48_000)
    at_44 = np.arange(80_000) / RATE
    same = 0.2 * np.stack([np.sin(2 * np.pi * 441 * at_44), np.sin(2 * np.pi * 1000 * at_44)], axis=1)
    write(tmp_path / "a_vae_rec.wav", same, RATE)
    assert call(tmp_path) == 0
    row = rows(tmp_path)["a"]
    assert (
        row["notes"]
        == f"original resampled from 48000 Hz; original trimmed by {88_200 - 80_000} samples to 1.81 s"
    )
    assert float(row["si_sdr"]) > 40
    assert float(row["seconds"]) == pytest.approx(80_000 / RATE, abs=1e-3)


@pytest.fixture
def faulty(tmp_path):
    """One good pair among everything that can be wrong with a pair."""
    for name in ("good", "random", "truncated", "nan", "empty", "channels", "surround"):
        write(tmp_path / f"{name}.wav", noise(0))
        write(tmp_path / f"{name}_vae_rec.wav", noise(0) + 0.1 * noise(1))
    (tmp_path / "random_vae_rec.wav").write_bytes(np.random.default_rng(0).bytes(5000))
    whole = (tmp_path / "truncated.wav").read_bytes()
    (tmp_path / "truncated.wav").write_bytes(whole[:30])
    (tmp_path / "empty_vae_rec.wav").write_bytes(b"")
    soundfile.write(tmp_path / "nan_vae_rec.wav", np.full((30_000, 2), np.nan), RATE, subtype="FLOAT")
    write(tmp_path / "channels_vae_rec.wav", noise(0, channels=1))
    for name in ("surround", "surround_vae_rec"):
        write(tmp_path / f"{name}.wav", noise(0, channels=12))
    write(tmp_path / "alone.wav", noise(0))
    write(tmp_path / "orphan_vae_rec.wav", noise(0))
    return tmp_path


def test_what_cannot_be_compared_is_listed_and_the_rest_done(faulty):
    assert call(faulty, "--report-files", "3") == 1
    summary = results(faulty)
    assert summary["file_count"] == 1
    reasons = {
        "random": "not readable as audio",
        "truncated": "truncated.wav",
        "nan": "NaN",
        "empty": "is empty",
        "channels": "has 1 channel, but its original has 2 channels",
        "surround": "12 channels",
        "alone.wav": "has no reconstruction",
        "orphan_vae_rec.wav": "has no original orphan.*",
    }
    assert set(summary["failed_files"]) == set(reasons)
    for name, reason in reasons.items():
        assert reason in summary["failed_files"][name]
        assert reason in rows(faulty)[name]["error"]
        assert reason in (faulty / "report.html").read_text()
    assert rows(faulty)["good"]["error"] == ""


def test_silence_is_undefined_in_every_file_and_leaves_the_means_alone(tmp_path):
    write(tmp_path / "silence.wav", np.zeros((30_000, 2)))
    write(tmp_path / "silence_vae_rec.wav", 0.01 * noise(0))
    assert call(tmp_path) == 0
    assert results(tmp_path)["avg_sisdr"] is None
    assert "avg_sisdr: undefined" in (tmp_path / evaluate.SUMMARY).read_text()
    assert rows(tmp_path)["silence"]["si_sdr"] == ""
    write(tmp_path / "music.wav", noise(0))
    write(tmp_path / "music_vae_rec.wav", noise(0) + 0.1 * noise(1))
    assert call(tmp_path, "--report-files", "5") == 0
    assert results(tmp_path)["avg_sisdr"] == pytest.approx(20, abs=0.5)
    assert "NaN" not in (tmp_path / evaluate.RESULTS).read_text()
    page = (tmp_path / "report.html").read_text()
    assert 'class="undefined"' in page
    assert ">nan<" not in page.lower()


def test_a_folder_without_any_pair_is_a_wrong_call(tmp_path):
    write(tmp_path / "a.wav", noise(0))
    with pytest.raises(UserError, match="no pair"):
        call(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        call(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no such file"):
        call(tmp_path, tmp_path / "nowhere")
    with pytest.raises(UserError, match="two folders or two files"):
        call(tmp_path / "a.wav", tmp_path)
    with pytest.raises(UserError, match="its reconstruction too"):
        call(tmp_path / "a.wav")
    write(tmp_path / "other" / "b.wav", noise(0))
    write(tmp_path / "third" / "c.wav", noise(0))
    with pytest.raises(UserError, match="has the same name as one"):
        call(tmp_path / "other", tmp_path / "third")


@pytest.mark.parametrize(
    "words", [["--report-files", "-1"], ["--excerpt-seconds", "0"], ["--excerpt-seconds", "x"]]
)
def test_wrong_flags_are_refused(tmp_path, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(tmp_path, *words)
    assert stopped.value.code == 2
    assert "argument" in capsys.readouterr().err


def test_recorded_evaluations_are_reproduced_by_the_command(shared_audio, tmp_path):
    """The recorded metrics are those of the published evaluation; its JSON holds their means."""
    expected = json.loads((shared_audio / "metrics.json").read_text())
    for name in expected:
        for end in ("", "_vae_rec"):
            shutil.copy(shared_audio / f"{name}{end}.wav", tmp_path)
    assert call(tmp_path) == 0
    summary = results(tmp_path)
    for key, recorded, tolerance in (
        ("avg_sisdr", "sisdr", 0.01),
        ("avg_mel_distance", "mel_distance", 0.003),
        ("avg_stft_distance", "stft_distance", 0.005),
        ("avg_per_channel_coherence", "per_channel_coherence", 0.001),
        ("avg_interchannel_coherence", "interchannel_coherence", 0.001),
    ):
        assert summary[key] == pytest.approx(np.mean([e[recorded] for e in expected.values()]), abs=tolerance)
    for side in ("gen", "gt"):
        for key, recorded, tolerance in (
            ("lufs-i", "LUFS-I", 0.1),
            ("lra", "LRA", 0.2),
            ("true_peak", "True Peak", 0.2),
        ):
            mean = np.mean([e[side][recorded] for e in expected.values()])
            assert math.isclose(summary[f"avg_{side}_{key}"], mean, abs_tol=tolerance)
