"""The ablation trains every variant from one seed and measures them alike."""

import numpy as np
import pytest
import small_training

pytest.importorskip("grain")

from earvae_jax.train.studies import ablation

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.slow
def test_variants_are_trained_and_measured(tmp_path, monkeypatch):
    chosen = ("whole objective", "without MSLR (left and right alone)")
    monkeypatch.setattr(ablation, "VARIANTS", {name: ablation.VARIANTS[name] for name in chosen})
    data = {"crop_samples": 8192, "batch_size": 2, "validation_items": 2, "threads": 1}  # phase needs frames
    config = small_training.config(steps=2, adversarial=None, data=data)
    results = ablation.ablation(config, tmp_path)
    assert tuple(results) == chosen
    for values in results.values():
        assert all(np.isfinite(values[metric]) for metric in ablation.METRICS)
    assert results[chosen[0]] != results[chosen[1]], "the switch changes nothing"
    assert ablation.ablation(config, tmp_path) == results, "a finished run is not trained again"
    table = ablation.table(results).splitlines()
    assert len(table) == 2 + len(chosen) and all(row.count("|") == table[0].count("|") for row in table)


def test_the_budget_fits_the_recipe():
    config = ablation.recipe()
    assert config.steps < 1000 and config.objective.mid_side and config.objective.correlation > 0
