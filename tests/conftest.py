"""What tests share: recorded truth, converted models, and the `earvae` command.

Compiled programs are kept for the run alone, in a folder that subprocesses share.
"""

import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from places import GOLDEN, GOLDEN_MODELS, ROOT

_IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ  # its environment is the first process's
if not _IS_WORKER:  # before anything compiles, and for every subprocess
    os.environ["EARVAE_CACHE_DIR"] = tempfile.mkdtemp(prefix="earvae-test-cache-")
    # XLA compiles a program in 32 parts side by side. The workers keep the cores busy without, and one part
    # costs a sixth less.
    _XLA_FLAGS = os.environ.get("XLA_FLAGS", "")
    if "codegen_split_count" not in _XLA_FLAGS:
        os.environ["XLA_FLAGS"] = f"{_XLA_FLAGS} --xla_cpu_parallel_codegen_split_count=1".lstrip()


def pytest_unconfigure(config):
    if not _IS_WORKER:
        shutil.rmtree(os.environ["EARVAE_CACHE_DIR"], ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Files of few long tests first, or they keep one worker busy while the others have nothing left."""
    long = (
        "test_loop",
        "test_endings",
        "test_step",
        "test_devices",
        "test_ablation",
        "test_docs",
        "test_notebooks",
        "test_parity.py",
    )
    items.sort(key=lambda item: not item.path.name.startswith(long))


@pytest.fixture(scope="module", autouse=True)
def programs_of_a_file_alone():
    """Gigabytes of programs that no later test runs make every collection of garbage slow."""
    yield
    import jax

    jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def compiled_once():
    """What several tests compile is compiled once, also where the library leaves the cache to its caller."""
    from earvae_jax.system.compilation_cache import enable_compilation_cache

    enable_compilation_cache()


@pytest.fixture(scope="module")
def quick_compilation():
    """Compiles without most optimizations, here and in subprocesses: for what is around a program."""
    import jax

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Recordings of the published code on random weights; each folder: config, weights, inputs, outputs."""
    return GOLDEN


@pytest.fixture(scope="session")
def shared_audio() -> Path:
    """Music and published reconstructions, which are not part of the repository."""
    folder = ROOT.parent / "shared" / "audio"
    if not folder.is_dir():
        pytest.skip(f"the recordings for testing are not at hand ({folder.parent.name}/{folder.name})")
    return folder


@pytest.fixture(scope="session")
def models(golden):
    """The models of the recordings by name."""
    pytest.importorskip("torch", reason="the recordings' weights are torch files")
    from earvae_jax.convert import from_torch
    from earvae_jax.convert.config_from_tensors import Stated
    from earvae_jax.parameters import build

    built = {}
    for name in GOLDEN_MODELS:
        rate = 48_000 if name.endswith("48k") else 44_100
        folder = golden / name
        weights = from_torch.read(folder / "weights.pyt", config=folder / "config.json", stated=Stated(rate))
        built[name] = build(weights.config, weights.arrays)
    return built


@pytest.fixture(scope="session")
def checkpoint(models, tmp_path_factory) -> Path:
    """The tiny 44.1 kHz model as a checkpoint."""
    from earvae_jax import checkpoints

    path = tmp_path_factory.mktemp("checkpoint") / "tiny_44k.safetensors"
    checkpoints.save(path, models["tiny_44k"], provenance={"name": "tiny_44k"})
    return path


@pytest.fixture
def earvae(monkeypatch):
    """Runs the command in this process; gives its exit status and the lines it printed to stderr."""
    from absl import logging

    from earvae_jax import command

    def run(*words) -> tuple[int, list[str]]:
        printed = io.StringIO()
        monkeypatch.setattr(sys, "stderr", printed)
        monkeypatch.setattr(logging.get_absl_handler().python_handler, "stream", printed)
        with pytest.raises(SystemExit) as ended:
            command._run(command._parse(["earvae", *map(str, words)]))
        return ended.value.code, printed.getvalue().splitlines()

    return run


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory) -> Path:
    """A model of two levels at 8 kHz, which costs nothing to run."""
    import small_models

    from earvae_jax import checkpoints

    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    checkpoints.save(path, small_models.model(small_models.KINDS["even strides"]))
    return path
