"""One device, eight simulated devices and two processes train alike, and as `jax.pmap` would."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_training
from tolerances import ACCUMULATION

pytest.importorskip("grain", reason="training needs the extra `train`")

from earvae_jax import checkpoints
from earvae_jax.errors import UserError
from earvae_jax.parameters import named_arrays
from earvae_jax.train.config import TrainConfig
from earvae_jax.train.loop import train

pytestmark = pytest.mark.usefixtures("quick_compilation")
COMMAND = (sys.executable, "-c", "from earvae_jax.command import main; main()")
STEPS = 5
DATA = {"crop_samples": small_training.CROP, "batch_size": 8, "validation_items": 1, "threads": 1}

# A step over 8 devices: what they exchange, and the same by jax.pmap: each device has its share of the batch
# and of the noise, gradients are averaged.
MESHED = """
import dataclasses, functools, re, jax, numpy as np, small_training
from jax.sharding import Mesh
from tolerances import ACCUMULATION
from earvae_jax.train.step import Trainer

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

@functools.partial(jax.pmap, axis_name="data", in_axes=(None, 0, 0))
def gradients(generator, audio, noise):
    gradient = Trainer(config).gradients(
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
        "PYTHONPATH": str(Path(__file__).parent),
    }


def start(config_file, workdir, *more, devices=1):
    words = map(str, ("train", "--config", config_file, "--workdir", workdir, *more))
    return subprocess.Popen([*COMMAND, *words], env=environment(devices), stderr=subprocess.PIPE, text=True)


def wait(*processes):
    for process in processes:
        errors = process.communicate()[1]
        assert process.returncode == 0, errors


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start_two(config_file, workdir, *more):
    address = f"localhost:{free_port()}"
    flags = ("--coordinator", address, "--num-processes", 2, "--process-id")
    return [start(config_file, workdir, *flags, index, *more) for index in range(2)]


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
    train(TrainConfig.from_json(config_file), workdir)
    return named_arrays(checkpoints.load(workdir / "model.safetensors"))


def assert_same_model(workdir, expected):
    arrays = named_arrays(checkpoints.load(workdir / "model.safetensors"))
    for name, array in expected.items():
        np.testing.assert_allclose(arrays[name], array, rtol=0, atol=ACCUMULATION, err_msg=name)


def test_eight_devices_train_as_one(config_file, alone, tmp_path):
    wait(start(config_file, tmp_path, devices=8))
    assert_same_model(tmp_path, alone)


@pytest.mark.slow
def test_two_processes_train_as_one_and_continue(config_file, alone, tmp_path):
    """Each step in two parts besides."""
    parts = ("--set", "accumulate=2")
    wait(*start_two(config_file, tmp_path, *parts, "--set", "steps=3"))
    wait(*start_two(config_file, tmp_path, *parts))
    assert_same_model(tmp_path, alone)
    config = dataclasses.replace(TrainConfig.from_json(config_file), accumulate=2)
    with pytest.raises(UserError, match="written by 2 processes"):
        train(config, tmp_path)


def test_a_batch_that_cannot_be_split_is_refused(config_file, tmp_path):
    process = start(config_file, tmp_path, "--set", "data.batch_size=6", devices=4)
    errors = process.communicate()[1]
    assert process.returncode == 2 and "cannot be split over 4 devices" in errors, errors


@pytest.mark.slow
def test_devices_exchange_gradients_alone_and_train_as_with_pmap():
    """Left to itself XLA gathers the whole batch on every device for each Fourier transform."""
    done = subprocess.run(
        [sys.executable, "-c", MESHED], env=environment(8), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "same" in done.stdout, done.stderr
