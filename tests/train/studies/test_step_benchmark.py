"""The benchmark of training steps runs both sides and tells their time and memory."""

import dataclasses

import pytest
import small_training

pytest.importorskip("torch")

from earvae_jax.train.studies import step_benchmark

pytestmark = pytest.mark.usefixtures("quick_compilation")


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
