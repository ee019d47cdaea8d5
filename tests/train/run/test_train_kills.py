"""Killed at random moments and continued, a run ends bit for bit where an uninterrupted one does."""

import random
import time

import light_training
import numpy as np
import pytest
import small_models
import small_training

pytest.importorskip("grain", reason="training needs the extra `train`")
pytest.importorskip("tensorboardX", reason="training needs the extra `train`")

from earvae_jax import checkpoints
from earvae_jax.audio.writer import write

KILLS = 10


@pytest.fixture
def music(tmp_path):
    noise = np.random.default_rng(0)
    for number in range(4):
        audio = 0.1 * noise.standard_normal((4000, 2), np.float32)
        write(tmp_path / "music" / f"{number}.wav", audio, small_models.SAMPLE_RATE)
    return tmp_path / "music"


def kill(process, moments, way, start_up):
    """After some steps, anywhere from start-up on, or while models and checkpoints are written."""
    if way == "anywhere":
        time.sleep(moments.uniform(0, 1.5 * start_up))
    else:
        steps = moments.randint(1, 4)
        for line in process.stderr:
            steps -= line.startswith("step ") if way == "steps" else 4 * ("validation" in line)
            if steps <= 0:
                break
        time.sleep(moments.uniform(0, 0.2 if way == "steps" else 0.05))
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, music):
    """During start-up, restoring, steps of both kinds, saving and export."""
    data = small_training.config().to_dict()["data"] | {"train": [str(music)], "threads": 2}
    adversarial = small_training.config().to_dict()["adversarial"] | {"start_step": 12}
    changes = {"steps": 40, "checkpoint_every": 3, "validate_every": 5, "keep_checkpoints": 2}
    config = small_training.config(data=data, adversarial=adversarial, **changes)
    config_file = light_training.write_config(tmp_path / "config.json", config)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    first = light_training.run_command(config_file, whole)
    errors = first.communicate()[1]
    assert first.returncode == 0, errors

    moments, start_up, ways = random.Random(0), None, ["steps", "anywhere", "validation"]
    for number in range(KILLS):
        started = time.monotonic()
        process = light_training.run_command(config_file, killed)
        kill(process, moments, ways[number % len(ways)], start_up)
        start_up = start_up or time.monotonic() - started
        for model in killed.glob("*.safetensors"):
            checkpoints.load(model)
    last = light_training.run_command(config_file, killed)
    errors = last.communicate()[1]
    assert last.returncode == 0, errors
    light_training.assert_same_run(whole, killed, config)
    for name in ("model.safetensors", "best.safetensors"):
        ours, expected = (checkpoints.read_info(folder / name) for folder in (killed, whole))
        assert ours.fingerprint == expected.fingerprint, name
        assert ours.provenance["trained_steps"] == expected.provenance["trained_steps"], name
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}
    assert light_training.saved_steps(killed) == light_training.saved_steps(whole)
