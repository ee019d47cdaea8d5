"""Stable Audio's and ACE-Step's shapes at their full size, with random weights whose twins differ.

At a sixteenth of the width, as other tests have them, sums are shorter and rounding is smaller.
"""

import dataclasses
import functools
import os
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
import small_models
from places import HELPERS
from whole_file import assert_close, sizes_for, whole_file_of

from earvae_jax.infer import Codec
from earvae_jax.model.config import ModelConfig

torch = pytest.importorskip("torch")

from earvae_jax.convert import to_torch  # noqa: E402
from earvae_jax.convert.parity import compare as parity  # noqa: E402
from earvae_jax.convert.torch_port import model as torch_model  # noqa: E402

pytestmark = pytest.mark.hour

NAMES = ("ace_step_1.5", "stable_audio_open")
LATENTS = 75  # three windows and more of the shortest that can be


def config(name) -> ModelConfig:
    return ModelConfig.from_json(resources.files("earvae_jax.configs") / f"{name}.json")


@functools.lru_cache(maxsize=1)  # 700 MB each
def model(name):
    made = small_models.model(config(name))
    assert not config(name).encoder.tied_activations
    return made


@dataclasses.dataclass(frozen=True)
class Truth:
    """A file that is not a whole number of latents, and what float64 makes of all of it at once."""

    audio: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    latents: np.ndarray  # any, for the decoder
    decoded: np.ndarray


@functools.lru_cache(maxsize=1)
def truth(name) -> Truth:
    encode, decode = whole_file_of(model(name))
    random = np.random.default_rng(0)
    audio = random.standard_normal((LATENTS * config(name).downsampling_ratio - 7, 2), np.float32)
    latents = random.standard_normal((LATENTS, 64), np.float32)
    return Truth(audio, *encode(audio), latents, decode(latents))


def check(codec, expected: Truth):
    latents = codec.encode(expected.audio)
    assert_close(latents.mean, expected.mean)
    assert_close(latents.std, expected.std)
    assert_close(codec.decode(expected.latents), expected.decoded)


@pytest.mark.parametrize("name", NAMES)
def test_windows_give_the_answer_of_the_whole_file(name):
    short, long = sizes_for(config(name))
    assert 2 * short < LATENTS
    for sizes in ((short,), (long, short), (LATENTS + 5,), None):
        codec = Codec(model(name), window_sizes=sizes)
        assert codec.engine.compiled.free_padding, "not the formulation that a CPU takes"
        check(codec, truth(name))


@pytest.mark.parametrize("name", NAMES)
def test_jax_is_as_near_to_float64_as_torch(name):
    """Over 26 latents: of 24k + 1 steps XLA on AVX-512 rounds the last ten times as much as the others."""
    port = torch_model.build(config(name), to_torch.state_dict(model(name)))
    report = parity.compare(model(name), port, parity.probe_signal(26 * config(name).downsampling_ratio, 2))
    assert report.passed, report.table()


DEVICES = """
import sys
import jax, numpy as np
import test_full_size as full
from earvae_jax.infer import Codec

name, file = sys.argv[1:]
assert jax.local_device_count() == 8
with np.load(file) as arrays:
    expected = full.Truth(**arrays)
codec = Codec(full.model(name), window_sizes=full.sizes_for(full.config(name))[:1])
assert len(codec.engine.compiled.devices) == 8
full.check(codec, expected)
print("same")
"""


@pytest.mark.parametrize("name", NAMES)
def test_eight_devices_give_the_answer_of_the_whole_file(name, tmp_path):
    np.savez(tmp_path / "truth.npz", **dataclasses.asdict(truth(name)))
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "NPROC": "16",  # or the simulated devices wait for each other on a small machine
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join((str(HELPERS), str(HELPERS.parent / "infer"))),
    }
    done = subprocess.run(
        [sys.executable, "-c", DEVICES, name, str(tmp_path / "truth.npz")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "same" in done.stdout, done.stderr
