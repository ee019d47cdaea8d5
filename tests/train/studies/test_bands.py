"""Errors in bands: what is left out is 0 dB, and the table has a row for each model and transform."""

import numpy as np
import pytest
from scipy import signal

from earvae_jax.audio.writer import write
from earvae_jax.train.studies import bands

RATE = 44_100


def test_a_band_that_is_left_out_has_0_db_and_one_that_is_kept_less():
    audio = np.random.default_rng(0).standard_normal((RATE, 2))
    low = signal.sosfiltfilt(signal.butter(8, 2000, fs=RATE, output="sos"), audio, axis=0)
    errors = bands.band_errors(audio, low, RATE)
    for place in ("mid", "side"):
        assert errors[f"{place} 0–200"] < -40 and errors[f"{place} 4000–22050"] == pytest.approx(0, abs=0.2)


def test_mid_and_side_are_told_apart():
    audio = np.random.default_rng(0).standard_normal((RATE, 2))
    mono = np.repeat(audio.mean(axis=1, keepdims=True), 2, axis=1)
    errors = bands.band_errors(audio, mono, RATE)
    assert errors["mid 200–1000"] < -100 and errors["side 200–1000"] == pytest.approx(0, abs=0.1)


def test_the_table_has_a_row_for_each(tmp_path, small_checkpoint, capsys):
    write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, (RATE // 2, 2)), RATE)
    bands.main([str(tmp_path), "--checkpoint", str(small_checkpoint), "--excerpt-seconds", "0.3"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and all(line.count("|") == 18 for line in lines)
    assert lines[2].startswith("| DCT 48/16 |") and str(small_checkpoint) in lines[4]
