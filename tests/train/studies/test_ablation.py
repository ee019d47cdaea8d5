"""The ablation trains every variant from one seed and measures them alike."""

import numpy as np
import pytest
import small_training

pytest.importorskip("grain")

from earvae_jax.train.studies import ablation

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.slow
def test_variants_are_trained_and_measured(tmp_path):
    chosen = ("whole objective", "without MSLR (left and right alone)")
    data = {"crop_samples": 8192, "batch_size": 2, "validation_items": 2, "threads": 1}  # phase needs frames
    config = small_training.config(steps=2, adversarial=None, data=data)
    results = ablation.ablation(config, tmp_path, 2, ["whole", "without MSLR"])
    assert tuple(results) == chosen
    for seeds in results.values():
        assert len(seeds) == 2 and seeds[0] != seeds[1], "the seed changes nothing"
        assert all(np.isfinite(values[metric]) for values in seeds for metric in ablation.METRICS)
    assert results[chosen[0]][0] != results[chosen[1]][0], "the switch changes nothing"
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert ablation.ablation(config, tmp_path, 2, ["whole", "without MSLR"]) == results
    assert kept == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}


def test_the_table_has_means_and_differences_within_a_seed():
    def seeds(*values):
        return [dict.fromkeys(ablation.METRICS, value) for value in values]

    transform = dict.fromkeys(ablation.METRICS, 0.25)
    text = ablation.table({"whole": seeds(1.0, 3.0), "without": seeds(1.5, 3.6)}, transform)
    assert text.count("| fixed cosine transform | 0.250 |") == 1
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| w")}
    assert "| whole | 2.000 ± 1.414 |" in text and "| without | 2.550 ± 1.485 |" in text
    assert "+0.550 ± 0.071" in rows["without"]
    assert "| whole | 1.000 |" in ablation.table({"whole": seeds(1.0)}, transform)


def test_the_budget_fits_the_recipe():
    config = ablation.recipe()
    assert config.steps <= 5000 and config.objective.mid_side and config.objective.correlation > 0
    assert ablation.recipe(["objective.log_waveform=0"]).objective.log_waveform == 0
