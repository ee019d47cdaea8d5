"""One device, eight simulated devices and two processes train alike, and as `jax.pmap` would."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time

import light_training
import numpy as np
import pytest
import small_training
from places import HELPERS
from tolerances import ACCUMULATION, TILED

pytest.importorskip("grain", reason="training needs the extra `train`")

from earvae_jax import checkpoints
from earvae_jax.audio.writer import write
from earvae_jax.errors import UserError
from earvae_jax.train.config import TrainConfig
from earvae_jax.train.run.loop import train
from earvae_jax.train.run.workdir import claim

pytestmark = pytest.mark.usefixtures("quick_compilation")
STEPS = 5
# Gradients are not scaled to steps of 1e-4 as parameters are: what is left where terms of them cancel.
MOMENTS = 10 * ACCUMULATION
DATA = {"crop_samples": small_training.CROP, "batch_size": 8, "validation_items": 1, "threads": 1}

# A step over 8 devices: what they exchange, and the same by jax.pmap: each device has its share of the batch
# and of the noise, gradients are averaged.
MESHED = """
import dataclasses, functools, re, jax, numpy as np, small_training
from jax.sharding import Mesh
from tolerances import ACCUMULATION
from earvae_jax.train.step.step import Trainer

assert jax.device_count() == 8
data = {"crop_samples": small_training.CROP, "batch_size": 8, "validation_items": 1}
config = small_training.config(data=data)
trainer = Trainer(config, Mesh(np.array(jax.devices()), ("data",)))
state = trainer.initial_state()
audio = 0.1 * np.random.default_rng(0).standard_normal((8, small_training.CROP, 2)).astype(np.float32)
step = jax.jit(functools.partial(trainer.step, adversarial=True)).lower(state, audio).compile()
exchanged = re.findall(r"= (.*) (all-[a-z-]+|collective-[a-z-]+|reduce-scatter[a-z-]*)[(]", step.as_text())
assert {name for _, name in exchanged} == {"all-reduce"}, exchanged
assert not any(str(small_training.CROP) in shapes for shapes, _ in exchanged), exchanged
meshed = step(state, audio)[0].generator

alone = Trainer(config)

@functools.partial(jax.pmap, axis_name="data", in_axes=(None, 0, 0))
def gradients(generator, audio, noise):
    gradient = alone.gradients(
        dataclasses.replace(state, generator=generator), audio, noise, adversarial=True)[0]
    return jax.lax.pmean(gradient, "data")

noise = trainer.noise(state.step, 8)
gradient = jax.tree.map(lambda leaf: leaf[0], gradients(state.generator, audio[:, None], noise[:, None]))
updates, _ = trainer._optimizer.update(gradient, state.optimizer, state.generator)
for ours, update, old in zip(*map(jax.tree.leaves, (meshed, updates, state.generator)), strict=True):
    np.testing.assert_allclose(ours, old + update, rtol=0, atol=ACCUMULATION)
print("same")
"""


def environment(devices: int) -> dict[str, str]:
    return {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "NPROC": "16",  # or the simulated devices wait for each other on a small machine
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(HELPERS),
    }


def start(config_file, workdir, *more, devices=1, before=""):
    return light_training.run_command(config_file, workdir, *more, before=before, env=environment(devices))


def wait(*processes, status=0):
    """What they said; those that wait for each other would do so for ever."""
    said = []
    try:
        for process in processes:
            said.append(process.communicate(timeout=400)[1])
            assert process.returncode == status, said[-1]
    finally:
        for process in processes:
            process.kill()
    return said


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start_two(config_file, workdir, *more, devices=1, before=("", "")):
    address = f"localhost:{free_port()}"
    flags = ("--coordinator", address, "--num-processes", 2, "--process-id")
    return [
        start(config_file, workdir, *flags, index, *more, devices=devices, before=before[index])
        for index in range(2)
    ]


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    # Small steps, so that rounding in gradients is not blown up by Adam where they are nearly zero.
    optimizer = {"learning_rate": 1e-4, "warmup": 0.0, "epsilon": 1e-3}
    adversarial = small_training.config().to_dict()["adversarial"] | {"start_step": 0}
    config = small_training.config(steps=STEPS, data=DATA, optimizer=optimizer, adversarial=adversarial)
    path = tmp_path_factory.mktemp("config") / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    return path


@pytest.fixture(scope="module")
def alone(config_file, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone")
    config = TrainConfig.from_json(config_file)
    train(config, workdir)
    return light_training.state_of(workdir, config)


def assert_same_state(workdir, config, expected):
    """Both models and their average; and both optimizers, relative to each array's peak."""
    state = light_training.state_of(workdir, config)
    assert state.keys() == expected.keys()
    for kind in ("generator", "average", "optimizer", "discriminator", "discriminator_optimizer"):
        assert any(name.startswith(f"{kind}.") for name in state), kind
    for name, array in expected.items():
        tolerance = MOMENTS * max(1, np.abs(array).max()) if "optimizer" in name else ACCUMULATION
        np.testing.assert_allclose(state[name], array, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("sharded", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_eight_devices_train_as_one(config_file, alone, tmp_path, sharded):
    """Each with all of the state or its part; what was saved by one can be continued by the other."""
    wait(start(config_file, tmp_path, "--set", f"shard_state={json.dumps(sharded)}", devices=8))
    assert_same_state(tmp_path, TrainConfig.from_json(config_file), alone)
    if not sharded:
        wait(
            start(
                config_file, tmp_path, "--set", "shard_state=true", "--set", f"steps={STEPS + 1}", devices=8
            )
        )
        assert light_training.saved_steps(tmp_path)[-1] == STEPS + 1


@pytest.mark.slow
def test_two_processes_train_as_one_and_continue(config_file, alone, tmp_path):
    """Each step in two parts besides."""
    parts = ("--set", "accumulate=2")
    wait(*start_two(config_file, tmp_path, *parts, "--set", "steps=3"))
    wait(*start_two(config_file, tmp_path, *parts))
    config = dataclasses.replace(TrainConfig.from_json(config_file), accumulate=2)
    with pytest.raises(UserError, match="written by 2 processes"):
        train(config, tmp_path)
    assert_same_state(tmp_path, config, alone)


@pytest.mark.slow
@pytest.mark.parametrize("last", [False, True])
def test_a_signal_to_one_of_two_processes_stops_both(config_file, tmp_path, last):
    """In the middle of a run, and while the last step is saved."""
    step = STEPS if last else 2
    before = (
        "import earvae_jax.train.run.agreement as agreement; agreement.SECONDS = 0.0\n"  # before each step
        "import os, signal; from earvae_jax.train.run.checkpoints import RunCheckpoints as saves\n"
        "save = saves.save\n"
        "def interrupted(self, state, step, *rest):\n"
        f"    if step == {step}: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    save(self, state, step, *rest)\n"
        "saves.save = interrupted"
    )
    often, _ = before.split("\n", 1)
    for said in wait(*start_two(config_file, tmp_path, before=(often, before))):
        assert ("the same command continues" in said) != last
    steps = checkpoints.read_info(tmp_path / "model.safetensors").provenance["trained_steps"]
    assert steps == light_training.saved_steps(tmp_path)[-1] == step


@pytest.mark.slow
def test_two_hosts_of_four_devices_train_and_encode_as_one(config_file, small_checkpoint, tmp_path):
    """Twenty steps, with an agreement every few of them; and a folder of songs, each host its share."""
    config = dataclasses.replace(TrainConfig.from_json(config_file), steps=20, checkpoint_every=20)
    alone, together = tmp_path / "alone", tmp_path / "together"
    train(config, alone)
    longer = ("--set", "steps=20", "--set", "checkpoint_every=20")
    wait(*start_two(config_file, together, *longer, devices=4))
    assert_same_state(together, config, light_training.state_of(alone, config))

    songs = {f"{index}.wav": 0.1 * small_training.music(1, seed=index)[0] for index in range(4)}
    for name, audio in songs.items():
        write(tmp_path / "songs" / name, np.tile(audio, (3 + len(name), 1)), 8000)
    address = f"localhost:{free_port()}"
    flags = ("--coordinator", address, "--num-processes", 2, "--process-id")
    words = ("encode", tmp_path / "songs", "--checkpoint", small_checkpoint, "--output-dir")
    hosts = [
        light_training.run_earvae(*words, tmp_path / "two", *flags, index, env=environment(4))
        for index in range(2)
    ]
    said = wait(*hosts)
    assert all("2 done" in each for each in said), said
    wait(light_training.run_earvae(*words, tmp_path / "one", env=environment(1)))
    for name in songs:
        ours, theirs = (np.load((tmp_path / where / name).with_suffix(".npz")) for where in ("two", "one"))
        for part in ("mean", "std"):
            peak = np.abs(theirs[part]).max()
            np.testing.assert_allclose(ours[part], theirs[part], rtol=0, atol=TILED * peak)


@pytest.mark.slow
def test_what_one_of_two_processes_cannot_do_both_say(config_file, tmp_path):
    """Data that is missing on one host, and a lock that only the first process takes."""
    missing = (
        "import earvae_jax.train.run.loop as loop; from earvae_jax.errors import UserError\n"
        "def fail(*_, **__): raise UserError('/music: no such file or folder')\n"
        "loop.training_examples = fail"
    )
    said = wait(*start_two(config_file, tmp_path, before=("", missing)), status=2)
    assert "error: process 1: /music: no such file or folder" in said[0]
    assert "error: /music: no such file or folder" in said[1]
    with claim(tmp_path):
        for words in wait(*start_two(config_file, tmp_path), status=2):
            assert "another run is training here" in words


@pytest.mark.slow
def test_a_process_that_fails_alone_does_not_wait_for_the_other(config_file, tmp_path):
    """The other one waits for its gradients."""
    broken = (
        "import earvae_jax.train.run.loop as loop\n"
        "def fail(*_): raise RuntimeError('broken')\n"
        "loop._Run._save = fail"
    )
    started = time.monotonic()
    first, second = start_two(config_file, tmp_path, before=("", broken))
    (said,) = wait(second, status=1)
    assert "RuntimeError: broken" in said
    first.communicate(timeout=120)  # its connection breaks
    assert first.returncode != 0 and time.monotonic() - started < 60


def test_a_batch_that_cannot_be_split_is_refused(config_file, tmp_path):
    process = start(config_file, tmp_path, "--set", "data.batch_size=6", devices=4)
    (said,) = wait(process, status=2)
    assert "cannot be split over 4 devices" in said


@pytest.mark.slow
def test_devices_exchange_gradients_alone_and_train_as_with_pmap():
    """Left to itself XLA gathers the whole batch on every device for each Fourier transform."""
    done = subprocess.run(
        [sys.executable, "-c", MESHED], env=environment(8), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "same" in done.stdout, done.stderr
