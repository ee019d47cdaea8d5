"""The study of single terms: what it changes, what it measures, and that it goes on where it was."""

import dataclasses
import json

import numpy as np
import pytest
import small_training

pytest.importorskip("grain")

from earvae_jax.train.studies import bands, terms

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_each_variant_has_one_term():
    config = terms.recipe()
    found = terms.variants(config)
    assert found.pop("whole objective") == config
    assert {name.removesuffix(" alone") for name in found} == set(terms.TERMS)
    for name, variant in found.items():
        assert variant.objective.active == [name.removesuffix(" alone")]
        assert dataclasses.replace(variant, objective=config.objective) == config


def test_errors_are_found_in_their_band_and_place():
    time = np.arange(44_100) / 44_100
    low, high = np.sin(2 * np.pi * 100 * time), np.sin(2 * np.pi * 5000 * time)
    audio = np.stack([low + high, low - high], axis=-1)[None]  # mid is low, side is high
    halved = np.stack([low + high / 2, low - high / 2], axis=-1)[None]
    found = bands.band_errors(audio, halved, 44_100)
    assert found["side 4000–22050"] == pytest.approx(20 * np.log10(0.5), abs=0.01)
    assert found["mid 0–200"] < -60


def test_what_is_measured_is_kept(tmp_path, monkeypatch):
    config = small_training.config(adversarial=None)
    results = terms.study(config, [0, 2], tmp_path, ["waveform"])
    assert list(results) == [terms.TRANSFORM, "waveform alone"]
    assert list(results["waveform alone"]) == [0, 2]
    assert results[terms.TRANSFORM][0].keys() == results["waveform alone"][0].keys()
    monkeypatch.setattr(terms, "train_to_the_end", lambda *_: pytest.fail("it trains again"))
    assert terms.study(config, [0, 2], tmp_path, ["waveform"]) == results
    assert (
        json.loads((tmp_path / "terms.json").read_text())["waveform alone"]["2"]
        == results["waveform alone"][2]
    )
    assert terms.table(results).count("\n") == 5


def test_an_interrupted_run_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("earvae_jax.train.run.loop.train", lambda config, workdir: config.steps - 1)
    with pytest.raises(KeyboardInterrupt):
        terms.study(small_training.config(adversarial=None), [2], tmp_path, ["waveform"])
    assert not list(tmp_path.rglob("*.json"))
