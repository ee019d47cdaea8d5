"""One device, eight simulated devices and two processes train alike."""

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

# The collective operations in a compiled step over 8 devices.
COLLECTIVES = """
import functools, re, jax, numpy as np, small_training
from jax.sharding import Mesh
from earvae_jax.train.step import Trainer

assert jax.device_count() == 8
trainer = Trainer(small_training.config(adversarial=None), Mesh(np.array(jax.devices()), ("data",)))
audio = np.zeros((8, small_training.CROP, 2), np.float32)
step = jax.jit(functools.partial(trainer.step, adversarial=False))
program = step.lower(trainer.state_shapes(), audio).compile().as_text()
print(sorted(set(re.findall(r" (all-[a-z]+|collective-[a-z]+)[(]", program))))
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
    wait(start(config_file, workdir))
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
    wait(*start_two(config_file, tmp_path, "--set", "steps=3"))
    wait(*start_two(config_file, tmp_path))
    assert_same_model(tmp_path, alone)
    with pytest.raises(UserError, match="written by 2 processes"):
        train(TrainConfig.from_json(config_file), tmp_path)


def test_a_batch_that_cannot_be_split_is_refused(config_file, tmp_path):
    process = start(config_file, tmp_path, "--set", "data.batch_size=6", devices=4)
    errors = process.communicate()[1]
    assert process.returncode == 2 and "cannot be split over 4 devices" in errors, errors


def test_devices_exchange_gradients_and_no_audio():
    """Left to itself XLA gathers the whole batch on every device for each Fourier transform."""
    done = subprocess.run(
        [sys.executable, "-c", COLLECTIVES], env=environment(8), capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "['all-reduce']", done.stdout + done.stderr
