"""How a run ends and goes on: signals, steps and validations that fail, disks that are full, other starts."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from logging import INFO
from pathlib import Path

import light_training
import numpy as np
import pytest
import small_models

pytest.importorskip("grain", reason="training needs the extra `train`")
pytest.importorskip("tensorboardX", reason="training needs the extra `train`")

from earvae_jax import checkpoints
from earvae_jax.audio.writer import write
from earvae_jax.errors import UserError
from earvae_jax.train.run import loop
from earvae_jax.train.run.agreement import Agreement
from earvae_jax.train.run.checkpoints import RunCheckpoints
from earvae_jax.train.watch.validation import Validator

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def light(monkeypatch):
    light_training.lighten(monkeypatch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four steps."""
    workdir = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patched:
        light_training.lighten(patched)
        loop.train(light_training.config(), workdir)
    return workdir


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def said(caplog) -> Callable[[], str]:
    """What was logged so far."""
    caplog.set_level(INFO, "absl")
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def provenance(path: Path) -> dict:
    return checkpoints.read_info(path).provenance


def test_what_all_processes_agree_on_decides(tmp_path, monkeypatch, light):
    """Another process was told to stop; this one was told too late."""
    answers = iter([False, False, True])
    monkeypatch.setattr(Agreement, "to_stop", lambda self, wanted: next(answers))
    config = light_training.config(steps=3, checkpoint_every=100)
    assert loop.train(config, tmp_path) == 2
    assert light_training.saved_steps(tmp_path) == [2]

    saved = []
    save = RunCheckpoints.save

    def interrupted_save(self, state, step, *rest):
        os.kill(os.getpid(), signal.SIGTERM)
        saved.append(step)
        save(self, state, step, *rest)

    monkeypatch.setattr(RunCheckpoints, "save", interrupted_save)
    monkeypatch.setattr(Agreement, "to_stop", lambda self, wanted: False)
    assert loop.train(config, tmp_path) == 3
    assert saved == [3] == light_training.saved_steps(tmp_path)[1:]


@pytest.mark.parametrize("moment", ["save", "wait", "close"])
def test_a_signal_at_the_end_loses_nothing(tmp_path, monkeypatch, light, moment):
    original, moments = getattr(RunCheckpoints, moment), []

    def interrupted(self, *rest):
        moments.append(moment)
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *rest)

    monkeypatch.setattr(RunCheckpoints, moment, interrupted)
    assert loop.train(light_training.config(steps=1), tmp_path) == 1
    assert moments and light_training.saved_steps(tmp_path) == [1]
    assert provenance(tmp_path / "model.safetensors")["trained_steps"] == 1


def test_steps_that_are_not_finite_end_with_a_way_on(tmp_path, monkeypatch, caplog, said):
    config = light_training.config(steps=6, checkpoint_every=2, max_skipped_steps=3)
    with monkeypatch.context() as patched:
        light_training.lighten(patched, bad_from=3)
        with pytest.raises(UserError, match="3 steps in a row had a non-finite loss") as caught:
            loop.train(config, tmp_path)
    message = str(caught.value)
    assert re.search(
        r"to continue from step 4, repeat the command with --set optimizer\.learning_rate=0\.0005;", message
    )
    written = Path(re.search(r"--init (\S+) --workdir NEW", message)[1])
    assert provenance(written)["trained_steps"] >= 5
    assert "2 steps skipped" in said()

    light_training.lighten(monkeypatch)
    caplog.clear()
    optimizer = config.to_dict()["optimizer"] | {"learning_rate": 5e-4}
    changed = light_training.config(steps=6, max_skipped_steps=3, optimizer=optimizer)
    assert loop.train(changed, tmp_path) == 6
    (warning,) = warnings(caplog)
    assert "learning rate goes from 0.001 to 0.0005" in warning
    new = light_training.config(steps=1, optimizer=optimizer | {"clip_norm": 1.0})
    assert loop.train(new, tmp_path / "new", initial=checkpoints.load(written)) == 1


def test_validation_without_a_result_loses_no_step(tmp_path, monkeypatch, light, caplog):
    heard = iter([np.nan, 0.0, 1.0])
    monkeypatch.setattr(Validator, "reconstruct", lambda self, state: self.audio * next(heard) + 0)
    config = light_training.config(steps=3, validate_every=1, keep_checkpoints=1)
    assert loop.train(config, tmp_path) == 3
    assert light_training.saved_steps(tmp_path) == [3]
    assert len([line for line in warnings(caplog) if "no si_sdr" in line]) == 2
    assert provenance(tmp_path / "best.safetensors")["trained_steps"] == 3


def test_the_best_model_is_kept_over_restarts(tmp_path, monkeypatch, light):
    scores = {1: 5.0, 2: 9.0, 3: 7.0, 4: 6.0, 5: 9.5}
    monkeypatch.setattr(Validator, "measure", lambda self, _: {"si_sdr": next(current)})
    best = []
    for steps in ((1, 2, 3), (4,), (5,)):
        current = iter([scores[step] for step in steps])
        config = light_training.config(steps=steps[-1], validate_every=1, keep_checkpoints=1)
        loop.train(config, tmp_path)
        latest, kept = (provenance(tmp_path / f"{name}.safetensors") for name in ("model", "best"))
        assert latest["trained_steps"] == steps[-1] and latest["validation"] == {"si_sdr": scores[steps[-1]]}
        assert light_training.saved_steps(tmp_path) == sorted({kept["trained_steps"], steps[-1]})
        best.append((kept["trained_steps"], kept["validation"]["si_sdr"]))
    assert best == [(2, 9.0), (2, 9.0), (5, 9.5)]


def test_a_damaged_best_model_is_replaced(run, light, caplog):
    (run / "best.safetensors").write_bytes(b"")
    assert loop.train(light_training.config(steps=5), run) == 5
    assert provenance(run / "best.safetensors")["trained_steps"] == 5
    assert "the next validation replaces it" in "".join(warnings(caplog))


def test_a_full_disk_while_saving_loses_nothing_saved(run, monkeypatch, light):
    from orbax.checkpoint import v1 as ocp

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(ocp.training.Checkpointer, "save_async", full)
        with pytest.raises(
            UserError,
            match="no space left on the disk; earlier checkpoints are whole; the same command continues",
        ):
            loop.train(light_training.config(steps=5), run)
    assert loop.train(light_training.config(steps=5), run) == 5


def test_a_full_disk_while_writing_the_model_loses_no_step(run, monkeypatch, light, caplog):
    """At a validation it is a warning, at the end, when there is no model, an error."""

    def full(*_, **__):
        raise UserError("model.safetensors: cannot be written: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save", full)
        with pytest.raises(UserError, match="No space left"):
            loop.train(light_training.config(steps=6, validate_every=5), run)
    assert light_training.saved_steps(run) == [4, 5, 6]
    assert provenance(run / "model.safetensors")["trained_steps"] == 4
    assert loop.train(light_training.config(steps=6), run) == 6
    assert provenance(run / "model.safetensors")["trained_steps"] == 6


def test_init_is_for_the_beginning(tmp_path, earvae, light, small_checkpoint):
    def start(*more):
        return earvae("train", "--config", config_file, "--workdir", tmp_path / "run", *more)

    config = light_training.config(steps=1)
    config_file = light_training.write_config(tmp_path / "config.json", config)
    given, other = tmp_path / "given.safetensors", tmp_path / "other.safetensors"
    for seed, path in enumerate((given, other)):
        model = small_models.model(config.model_config, seed=seed)
        checkpoints.save(path, model, provenance={"name": path.stem})
    assert start("--init", given)[0] == 0
    origin = provenance(tmp_path / "run" / "model.safetensors")["origin"]
    assert origin["checkpoint"] == str(given) and origin["provenance"] == {"name": "given"}
    moved = shutil.copy(given, tmp_path / "moved.safetensors")
    for more in (("--init", given), ("--init", moved), ()):
        status, lines = start("--set", "steps=2", *more)
        assert status == 0 and "continuing" in "".join(lines)
    status, lines = start("--init", other)
    assert status == 2 and len(lines) == 1, lines
    assert f"started from {given}, not from {other}" in lines[0]
    assert provenance(tmp_path / "run" / "model.safetensors")["origin"] == origin
    status, lines = start("--init", small_checkpoint)
    wanted = r"its config differs from `model` in the training config .*encoder\.config\.\w+ was .*, is "
    assert status == 2 and re.search(wanted, lines[-1]), lines


def test_init_is_refused_where_a_run_began_at_random(run, light):
    config = light_training.config()
    with pytest.raises(UserError, match="started from random weights, not from"):
        loop.train(config, run, initial=small_models.model(config.model_config))


def test_other_recordings_are_announced_not_refused(tmp_path, light, caplog, said):
    noise, music, held = np.random.default_rng(0), tmp_path / "music", tmp_path / "held.wav"
    for path in (music / "1.wav", music / "2.wav", held):
        write(path, 0.1 * noise.standard_normal((4000, 2), np.float32), small_models.SAMPLE_RATE)
    (music / "broken.wav").write_bytes(b"no audio")
    data = light_training.config().to_dict()["data"] | {"train": [str(music)], "validation": [str(held)]}

    def start(steps):
        caplog.clear()
        assert loop.train(light_training.config(steps=steps, data=data), tmp_path / "run") == steps
        return [line for line in warnings(caplog) if "training files were" in line]

    assert not start(1)
    assert "1 files skipped" in said()
    assert not start(2)
    shutil.copy(music / "1.wav", music / "9.wav")
    assert len(start(3)) == 1
    assert not start(4)


def test_a_workdir_is_of_one_run(run, light, tmp_path):
    """Checked before anything else, and freed by the system when a run is killed."""
    script = (
        "import pathlib, sys; from earvae_jax.train.run.workdir import claim\n"
        "lock = claim(pathlib.Path(sys.argv[1])); print('claimed', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "claimed\n"
        with pytest.raises(
            UserError, match=rf"{run}: another run is training here \(process {holder.pid} on "
        ):
            loop.train(light_training.config(data={"train": ["/no/such"]}), run)
    finally:
        holder.kill()
        holder.communicate()
    assert loop.train(light_training.config(), run) == 4


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/run"])
def test_workdirs_that_cannot_be_are_named(tmp_path, light, place):
    (tmp_path / "file").touch()
    workdir = tmp_path / place
    with pytest.raises(UserError, match=f"{workdir}: not a folder that can be written to"):
        loop.train(light_training.config(data={"train": ["/no/such"]}), workdir)


def test_file_systems_without_locks_do(tmp_path, light, monkeypatch):
    from earvae_jax.train.run import workdir

    def unknown(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(workdir.fcntl, "flock", unknown)
    assert loop.train(light_training.config(steps=1), tmp_path) == 1


def test_a_full_disk_ends_a_run_with_what_is_safe(tmp_path):
    """Files may not grow beyond a limit: what Orbax makes of the system's own errors."""
    config_file = light_training.write_config(tmp_path / "config.json", light_training.config(steps=3))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))"
    process = light_training.run_command(config_file, tmp_path / "run", before=limit)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 2, errors
    assert f"error: {tmp_path}/run/checkpoints: saving failed: " in errors, errors
