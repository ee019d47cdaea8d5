"""Releases of jax with faults that no care in this package can mend: they are kept out, and seen if not."""

import importlib.metadata
import os
import subprocess
import sys
import textwrap

import jax
import jaxlib
import pytest
from packaging.requirements import Requirement

from earvae_jax.system.known_faults import HANGING_JAXLIB, keep_transforms_from_hanging

_LIMIT = 300  # seconds; an ending run takes ten to thirty, a hanging one never ends

# Transforms of different sizes side by side, as a program of a user's own has them that adds up losses.
_SIDE_BY_SIDE = """
    import jax
    import numpy as np

    from earvae_jax.signal.metrics import evaluate_pair
    from earvae_jax.train.losses import correlation_loss, multi_resolution_stft_loss

    @jax.jit
    @jax.grad
    def gradient(prediction, target):
        magnitude = multi_resolution_stft_loss(prediction, target, n_ffts=(2048, 512, 128))
        return magnitude + correlation_loss(prediction, target, n_fft=1024, hop_length=256)

    prediction, target = np.random.default_rng(0).standard_normal((2, 1, 16384, 2)).astype(np.float32)
    for _ in range(20):
        jax.block_until_ready(gradient(prediction, target))
        evaluate_pair(target[0], prediction[0], 44_100)
"""


def requirements() -> list[Requirement]:
    """What the package says of jax, in its dependencies and its extras."""
    named = [Requirement(text) for text in importlib.metadata.requires("earvae-jax")]
    return [requirement for requirement in named if requirement.name == "jax"]


def test_no_requirement_admits_a_release_that_hangs():
    assert len(requirements()) == 3
    for requirement in requirements():
        assert not [version for version in HANGING_JAXLIB if requirement.specifier.contains(version)]


@pytest.mark.parametrize("installed", [jax, jaxlib], ids=lambda module: module.__name__)
def test_the_installed_release_is_admitted(installed):
    for requirement in requirements():
        assert requirement.specifier.contains(installed.__version__, prereleases=True)


def test_transforms_side_by_side_end():
    """Two threads: the fault needs as many transforms at once as the pool has threads."""
    environment = {**os.environ, "NPROC": "2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", textwrap.dedent(_SIDE_BY_SIDE)]
    subprocess.run(command, env=environment, timeout=_LIMIT, check=True)


@pytest.mark.parametrize(
    ("version", "before", "after"),
    [
        ("0.11.2", None, "--xla_cpu_multi_thread_eigen=false"),
        ("0.11.1", "--xla_dump_to=x", "--xla_dump_to=x --xla_cpu_multi_thread_eigen=false"),
        ("0.11.2", "--xla_cpu_multi_thread_eigen=true", "--xla_cpu_multi_thread_eigen=true"),
        ("0.11.0", None, None),
    ],
)
def test_a_command_asks_a_release_that_hangs_for_one_thread(monkeypatch, version, before, after):
    monkeypatch.setattr(jaxlib, "__version__", version)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if before is not None:
        monkeypatch.setenv("XLA_FLAGS", before)
    keep_transforms_from_hanging()
    assert os.environ.get("XLA_FLAGS") == after
