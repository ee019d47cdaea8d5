"""Whole songs are measured while a run goes on."""

import dataclasses
import json
import logging

import numpy as np
import pytest
import small_models
import small_training
import soundfile

from earvae_jax.errors import UserError
from earvae_jax.infer import Codec
from earvae_jax.signal.metrics import NAMES, evaluate_pair
from earvae_jax.train.run import watcher
from earvae_jax.train.run.loop import train
from earvae_jax.train.run.songs import Songs, song_means

pytestmark = pytest.mark.usefixtures("quick_compilation")
RATE = 44_100


@pytest.fixture
def songs(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    for number, (rate, channels) in enumerate(((RATE, 2), (22_050, 1))):
        time = np.arange(rate) / rate
        tones = [np.sin(2 * np.pi * f * time + number) for f in (220, 331)][:channels]
        soundfile.write(folder / f"{number}.wav", 0.3 * np.stack(tones, axis=1), rate, subtype="FLOAT")
    (folder / "bad.flac").write_bytes(b"fLaC but nothing more")
    return folder


def test_a_song_is_measured_as_its_reconstruction(songs, caplog):
    model = small_training.config().model_config
    model = small_models.model(dataclasses.replace(model, sample_rate=RATE))
    with caplog.at_level(logging.WARNING):
        found = Songs([str(songs)], RATE).measure(model)
    assert "bad.flac" in caplog.text and set(found) == {"0.wav", "1.wav"}
    audio = soundfile.read(songs / "0.wav", dtype="float32")[0]
    metrics = evaluate_pair(audio, Codec(model).reconstruct(audio), RATE)
    assert found["0.wav"] == pytest.approx({name: metrics[name] for name in NAMES}, abs=1e-4)
    assert "ccpc" not in found["1.wav"] or found["1.wav"]["ccpc"] is not None
    means = song_means(found)
    assert means["si_sdr"] == pytest.approx(np.mean([each["si_sdr"] for each in found.values()]))


def test_a_run_measures_songs_and_writes_its_page(songs, tmp_path, caplog, monkeypatch):
    config = small_training.config(steps=4, validate_every=2, songs_every=4, adversarial=None)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, songs=(str(songs / "0.wav"),)))
    with caplog.at_level(logging.INFO):
        train(config, tmp_path / "run")
    assert "step 4  1 whole songs" in caplog.text and "step 2  1 whole" not in caplog.text
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    groups = {line["group"] for line in lines}
    assert {"train", "validation", "gain_over_transform", "health", "pull", "songs"} <= groups
    assert {line["step"] for line in lines if line["group"] == "songs"} == {4}
    page = (tmp_path / "run" / "summary.html").read_text(encoding="utf-8")
    assert "0.wav" in page and "Whole songs" in page
    # A page of the same run in another process has them too, before they are measured again.
    pages = []
    monkeypatch.setattr(watcher, "write_summary", lambda *_, step, songs, **__: pages.append((step, songs)))
    train(dataclasses.replace(config, steps=8, songs_every=8), tmp_path / "run")
    (first, at_first), (last, at_last) = pages
    assert (first, last) == (6, 8) and at_first.keys() == at_last.keys() == {"0.wav"}
    assert at_first["0.wav"].keys() == at_last["0.wav"].keys() and at_first != at_last


def test_songs_that_do_not_exist_are_named(tmp_path):
    with pytest.raises(UserError, match=r"data\.songs"):
        Songs([str(tmp_path / "none")], RATE)
    assert not Songs([], RATE)


def test_songs_come_at_validations():
    config = small_training.config(validate_every=30)
    data = dataclasses.replace(config.data, songs=("songs",))
    with pytest.raises(UserError, match="songs_every"):
        dataclasses.replace(config, data=data, songs_every=100)
