"""Which of several processes this one is."""

import argparse
import threading

import jax
import pytest

from earvae_jax.errors import UserError
from earvae_jax.system import processes
from earvae_jax.system.processes import join, leaving_others_at_failure

ALONE = argparse.Namespace(coordinator=None, num_processes=None, process_id=None)


@pytest.fixture
def joined(monkeypatch):
    """What `jax.distributed.initialize` was called with."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *address, **_: calls.append(address))
    for name in ("SLURM_NTASKS", "SLURM_STEP_NODELIST", "TPU_WORKER_HOSTNAMES", "MEGASCALE_NUM_SLICES"):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_one_process_joins_nobody(joined):
    assert join(ALONE) == (0, 1) and not joined


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "n[1-4]"},
        {"TPU_WORKER_HOSTNAMES": "a,b"},
        {"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"},
    ],
)
def test_tasks_of_a_cluster_find_each_other(joined, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    join(ALONE)
    assert joined == [()]


def test_jax_finds_the_others_where_it_is_told_to(joined):
    join(argparse.Namespace(coordinator="auto", num_processes=None, process_id=None))
    assert joined == [()]


@pytest.mark.parametrize("given", [("auto", 2, None), (None, 2, 0), ("localhost:1", None, 0)])
def test_flags_that_are_not_together(joined, given):
    names = ("coordinator", "num_processes", "process_id")
    with pytest.raises(UserError, match="together or not at all"):
        join(argparse.Namespace(**dict(zip(names, given, strict=True))))
    assert not joined


def test_a_batch_script_of_slurm_is_one_process(joined, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert join(ALONE) == (0, 1) and not joined


def test_a_cluster_that_cannot_be_joined_is_one_line(monkeypatch):
    def fail(*_, **__):
        raise ValueError("coordinator_address should be defined.\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b")
    with pytest.raises(UserError, match=r"cannot reach the other tasks.*should be defined\.$"):
        join(ALONE)


@pytest.mark.parametrize("index", [-1, 2])
def test_impossible_flags_are_refused(index):
    with pytest.raises(UserError, match="--process-id"):
        join(argparse.Namespace(coordinator="localhost:1", num_processes=2, process_id=index))


@pytest.fixture
def at_exit(monkeypatch):
    """What is to be called when this process ends; it is one of several."""
    calls = []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(processes.atexit, "register", lambda *call: calls.append(call))
    monkeypatch.setattr(processes, "_FAILURE_SECONDS", 0.1)
    return calls


@pytest.mark.parametrize(("error", "status"), [(UserError("wrong"), 2), (RuntimeError("broken"), 1)])
def test_who_fails_alone_does_not_wait_for_the_others(at_exit, monkeypatch, error, status):
    others_end = threading.Event()
    monkeypatch.setattr(jax.distributed, "shutdown", others_end.wait)
    with pytest.raises(type(error), match=str(error)), leaving_others_at_failure():
        raise error
    assert at_exit == [(processes._leave, status)]
    others_end.set()


def test_who_fail_together_end_together(at_exit, monkeypatch):
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: None)
    with pytest.raises(UserError), leaving_others_at_failure():
        raise UserError("wrong")
    with leaving_others_at_failure():
        pass
    assert not at_exit


def test_one_process_fails_as_it_is(monkeypatch):
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: pytest.fail("there are no others"))
    with pytest.raises(UserError), leaving_others_at_failure():
        raise UserError("wrong")
