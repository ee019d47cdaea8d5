"""The curves of a run outlive the process that wrote them."""

import logging
from pathlib import Path

import pytest

from earvae_jax.train.watch.history import History


def test_a_continued_run_goes_on_where_its_checkpoint_was(tmp_path):
    path = tmp_path / "history.jsonl"
    first = History(path)
    for step in (10, 20, 30):
        first.add(step, "train", {"loss": step / 10, "kl": 1.0})
    first.add(20, "validation", {"si_sdr": 5.0})
    second = History(path, after=20)
    assert second.curves == {
        "train/loss": [(10, 1.0), (20, 2.0)],
        "train/kl": [(10, 1.0), (20, 1.0)],
        "validation/si_sdr": [(20, 5.0)],
    }
    second.add(30, "train", {"loss": 9.0})
    assert History(path, after=99).curves["train/loss"] == [(10, 1.0), (20, 2.0), (30, 9.0)]


def test_the_last_values_of_groups_that_begin_alike(tmp_path):
    history = History(tmp_path / "history.jsonl")
    history.add(10, "song a/b.wav", {"si_sdr": 1.0, "icpc": 0.5})
    history.add(10, "song gone.wav", {"si_sdr": 3.0})
    history.add(20, "song a/b.wav", {"si_sdr": 2.0})
    history.add(30, "songs", {"si_sdr": 9.0})
    assert History(tmp_path / "history.jsonl", after=99).last("song ") == {"a/b.wav": {"si_sdr": 2.0}}
    assert history.last("none ") == {}


def test_a_new_run_begins_anew(tmp_path):
    path = tmp_path / "history.jsonl"
    History(path).add(10, "train", {"loss": 1.0})
    assert not History(path).curves and not path.read_text()


@pytest.mark.parametrize("end", ['{"step": 20, "gro', "[]\n", '{"step": "x"}\n', "\0\0"])
def test_a_line_that_was_cut_off_is_dropped(tmp_path, end):
    path = tmp_path / "history.jsonl"
    History(path).add(10, "train", {"loss": 1.0})
    with path.open("a") as file:
        file.write(end)
    again = History(path, after=99)
    again.add(20, "train", {"loss": 2.0})
    assert History(path, after=99).curves == {"train/loss": [(10, 1.0), (20, 2.0)]}


def test_numbers_that_are_not_finite_are_left_out(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    history.add(10, "train", {"loss": float("nan"), "kl": 1.0})
    assert history.curves == {"train/kl": [(10, 1.0)]} == History(path, after=10).curves


def test_a_failing_disk_ends_the_history_alone(tmp_path, caplog):
    path = tmp_path / "history.jsonl"
    history = History(path)
    path.unlink()
    path.mkdir()
    with caplog.at_level(logging.WARNING):
        for step in (10, 20):
            history.add(step, "train", {"loss": 1.0})
    assert len([each for each in caplog.messages if str(path) in each]) == 1
    assert history.curves["train/loss"] == [(10, 1.0)]


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    History(None).add(10, "train", {"loss": 1.0})
    assert not list(Path().iterdir())
