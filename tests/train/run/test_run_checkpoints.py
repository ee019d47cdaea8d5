"""Checkpoints of a run: what is damaged is named, what is whole continues, and what may change."""

import json
import shutil

import jax
import jax.numpy as jnp
import light_training
import numpy as np
import pytest

pytest.importorskip("grain", reason="training needs the extra `train`")

from earvae_jax.errors import UserError
from earvae_jax.train.run.checkpoints import Record, RunCheckpoints
from earvae_jax.train.run.same_run import rate_jumps
from earvae_jax.train.step.state import TrainState

CONFIG = light_training.config()
ORIGIN = {"checkpoint": "given.safetensors", "fingerprint": "f00"}
RECORD = Record(CONFIG, ({"place": 3},), "music", ORIGIN)
COOLING = {"learning_rate": 1e-3, "warmup": 0.0, "decay_steps": 1e9, "cooldown_steps": 4}


def state(step: int) -> TrainState:
    """Of a run whose weights are large enough for a file of their own."""
    count = jnp.int32(0)
    weights = {"w": jnp.asarray(np.random.default_rng(step).standard_normal((100, 100)), jnp.float32)}
    return TrainState(jnp.int32(step), count, count, weights, {}, weights, (), None, None)


def save(workdir, scores: dict[int, dict | None], **changes) -> None:
    saves = RunCheckpoints(workdir, light_training.config(**changes))
    for step, metrics in scores.items():
        saves.save(state(step), step, RECORD, metrics)
    saves.close()


def restored(workdir) -> tuple[TrainState, Record]:
    saves = RunCheckpoints(workdir, CONFIG)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), state(0)
    )
    try:
        return saves.restore(target)
    finally:
        saves.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    save(workdir, {1: None, 2: {"si_sdr": 1.0}})
    return workdir


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def test_what_is_saved_comes_back(whole):
    found, record = restored(whole)
    assert int(found.step) == 2 and record == RECORD
    np.testing.assert_array_equal(found.generator["w"], state(2).generator["w"])


@pytest.mark.parametrize(
    "damaged",
    [
        "state/ocdbt.process_0/d/*",  # arrays
        "state/d/*",  # where each array lies
        "state/_METADATA",
        "state/array_metadatas/process_0",
        "_CHECKPOINT_METADATA",
        "metrics/metrics",
    ],
)
def test_whatever_is_damaged_the_checkpoint_before_continues(run, damaged):
    """As a power cut leaves them: files of no length."""
    latest = run / "checkpoints" / "2"
    files = list(latest.glob(damaged))
    assert files
    for path in files:
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"checkpoints/2: damaged .*; delete this folder") as caught:
        restored(run)
    assert "\n" not in str(caught.value)
    shutil.rmtree(latest)
    found, record = restored(run)
    assert int(found.step) == 1 and record == RECORD
    np.testing.assert_array_equal(found.generator["w"], state(1).generator["w"])


def test_what_is_half_written_is_passed_over(run):
    half = shutil.copytree(run / "checkpoints" / "2", run / "checkpoints" / "3.orbax-checkpoint-tmp")
    (half / "metrics" / "metrics").write_bytes(b"")
    found, _ = restored(run)
    assert int(found.step) == 2 and light_training.saved_steps(run) == [1, 2]


def test_the_only_checkpoint_being_damaged_is_said(run):
    shutil.rmtree(run / "checkpoints" / "1")
    (run / "checkpoints" / "2" / "_CHECKPOINT_METADATA").unlink()
    with pytest.raises(UserError, match="delete this folder to begin again"):
        restored(run)


def test_keeps_the_latest_and_the_best_whatever_validation_says(tmp_path):
    """A constant reconstruction has no SI-SDR, one that is not finite nothing at all."""
    scores = {1: {"si_sdr": 5.0}, 2: {"si_sdr": 9.0}, 3: {"icpc": 0.5}, 4: {}, 5: None, 6: {"si_sdr": 8.0}}
    save(tmp_path, scores, keep_checkpoints=1)
    assert light_training.saved_steps(tmp_path) == [2, 6]


def test_checkpoints_of_older_versions_are_read(run):
    """Without what was not recorded yet."""
    path = run / "checkpoints" / "2" / "_CHECKPOINT_METADATA"
    values = json.loads(path.read_text())
    for key in ("data", "origin"):
        del values["custom_metadata"][key]
    path.write_text(json.dumps(values))
    _, record = restored(run)
    assert record.data is None and record.origin is None and record.position == RECORD.position


def test_options_of_another_version_are_named_with_the_checkpoint(run):
    path = run / "checkpoints" / "2" / "_CHECKPOINT_METADATA"
    values = json.loads(path.read_text())
    values["custom_metadata"]["config"]["novelty"] = 1
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=rf"^{path.parent}: .*novelty"):
        restored(run)


@pytest.mark.parametrize(
    ("done", "changes", "expected"),
    [
        (3, {"steps": 20}, None),  # the cooldown had not begun
        (8, {"steps": 20}, "from 0.00075 to 0.001"),
        (10, {"steps": 20}, "from 0.00025 to 0.001"),  # the run was finished
        (3, {"optimizer": COOLING | {"learning_rate": 5e-4}}, "from 0.001 to 0.0005"),
        (3, {"log_every": 7}, None),
    ],
)
def test_jumps_of_the_learning_rate_are_announced(done, changes, expected):
    old = light_training.config(steps=10, optimizer=COOLING)
    new = light_training.config(**({"steps": 10, "optimizer": COOLING} | changes))
    lines = list(rate_jumps(old, new, done))
    assert len(lines) == (expected is not None)
    assert not lines or expected in lines[0]
