"""The benchmark of training steps runs both sides and tells their time and memory."""

import dataclasses
import json
import sys

import pytest
import small_training

pytest.importorskip("torch")

from earvae_jax.errors import UserError
from earvae_jax.train.studies import step_benchmark

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.slow
@pytest.mark.parametrize("adversarial", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_both_sides_are_timed(adversarial):
    result = step_benchmark.step_benchmark(small_training.config(), adversarial=adversarial, repeats=1)
    assert result["speedup"] == pytest.approx(result["torch_seconds"] / result["jax_seconds"])
    audio = 4 * small_training.CROP / 8000
    for side in ("jax", "torch"):
        assert result[f"{side}_realtime"] == pytest.approx(audio / result[f"{side}_seconds"])
        used = step_benchmark.step_memory(small_training.config(), side, adversarial=adversarial)
        assert used is None or 0 <= used < 4e9  # this process may hold freed memory


def test_sizes_are_the_demo_and_a_quarter_of_the_published_width():
    demo, quarter = step_benchmark.train_configs().values()
    assert demo.model_config.encoder.channels == 8
    assert quarter.model_config.encoder.widths[-1] * 4 == 2048
    assert dataclasses.replace(demo, model=quarter.model, data=quarter.data) == quarter


@pytest.mark.parametrize("torch", [True, False])
def test_a_recipe_is_measured(torch, tmp_path, capsys, monkeypatch):
    """In bfloat16, which torch computes by autocast; without torch JAX alone."""
    if not torch:
        monkeypatch.setitem(sys.modules, "torch", None)
    path, output = tmp_path / "recipe.json", tmp_path / "out.json"
    path.write_text(json.dumps(small_training.config().to_dict()))
    words = ["--config", str(path), "--set", "compute_dtype=bfloat16", "--step", "generator"]
    step_benchmark.main([*words, "--repeats", "1", "--json", str(output)])
    (found,) = json.loads(output.read_text()).values()
    assert found["jax_crops"] == pytest.approx(4 / found["jax_seconds"])
    assert ("torch_crops" in found) == ("speedup" in found) == torch
    row = next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("| recipe | generator")
    )
    assert row.count("–") == (0 if torch else 3)


def test_a_recipe_that_will_not_do(tmp_path):
    path = tmp_path / "alone.json"
    path.write_text(json.dumps(small_training.config(adversarial=None).to_dict()))
    with pytest.raises(UserError, match="has no discriminator"):
        step_benchmark.main(["--config", str(path)])
    with pytest.raises(UserError, match="--set goes with --config"):
        step_benchmark.main(["--set", "seed=1"])
