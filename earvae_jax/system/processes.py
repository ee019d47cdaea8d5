"""Joins the processes of one job, and says which of them this one is."""

import argparse
import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from earvae_jax.errors import UserError

# Variables that clusters set for a job of several tasks; `jax.distributed` finds such tasks by itself.
_TASK_COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
# An sbatch script sees the count but is one process; srun starts so many processes and sets this.
_SLURM_STEP = "SLURM_STEP_NODELIST"
_TPU_WORKERS = "TPU_WORKER_HOSTNAMES"
_TPU_SLICES = "MEGASCALE_NUM_SLICES"
_AUTO = "auto"
# A process that has finished waits this long for the slowest; files differ by hours.
_SHUTDOWN_SECONDS = 24 * 3600
# A process that has failed waits this long for the others, which may be waiting for it, and then leaves.
_FAILURE_SECONDS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags by which several processes find each other."""
    group = parser.add_argument_group("several processes (on SLURM and TPU pods they find each other)")
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="address of process 0; auto: where JAX finds it out, as on TPU machines of Google Cloud",
    )
    group.add_argument("--num-processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process-id", type=int, metavar="I", help="which of them this is, from 0")


def join(arguments: argparse.Namespace) -> tuple[int, int]:
    """Joins the other processes, if there are any; returns this one's index and the number of processes.

    Call it before the first use of a device.

    Raises:
      UserError: only some of the three flags are given, their values are impossible, or the other processes
        cannot be reached.
    """
    import jax

    given = (arguments.coordinator, arguments.num_processes, arguments.process_id)
    if all(value is None for value in given):
        # Without a cluster's variables a TPU pod still knows its hosts.
        if _in_cluster():
            _initialize("the other tasks of this job")
    elif given == (_AUTO, None, None):
        _initialize("the other processes, which --coordinator auto leaves JAX to find")
    elif any(value is None for value in given):
        raise UserError("--coordinator, --num-processes and --process-id are given together or not at all")
    else:
        coordinator, count, index = given
        if count < 1 or not 0 <= index < count:
            raise UserError(f"--process-id {index} is not one of --num-processes {count}")
        address = {"coordinator_address": coordinator, "num_processes": count, "process_id": index}
        _initialize(f"--coordinator {coordinator}", **address)
    return jax.process_index(), jax.process_count()


@contextlib.contextmanager
def leaving_others_at_failure() -> Iterator[None]:
    """Wraps work in which processes wait for each other's results.

    By default, a process that fails inside would wait for the others before it ends, and they might wait for
    its results for ever. Here it leaves them after a few seconds; if all fail alike, they still end together.
    The others see the connection break, or at the latest miss its heartbeat, and end too.
    """
    import jax

    try:
        yield
    except BaseException as error:
        if jax.distributed.is_initialized():
            together = threading.Thread(target=jax.distributed.shutdown, daemon=True)
            together.start()
            together.join(_FAILURE_SECONDS)
            if together.is_alive():
                # At the end, the function that was registered last is called first.
                atexit.register(_leave, 2 if isinstance(error, UserError) else 1)
        raise


def _leave(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _initialize(who: str, **address: Any) -> None:
    import jax

    try:
        jax.distributed.initialize(**address, shutdown_timeout_seconds=_SHUTDOWN_SECONDS)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"this process cannot reach {who}: {str(error).splitlines()[0]}") from None


def _in_cluster() -> bool:
    counts = [name for name in _TASK_COUNTS if name != "SLURM_NTASKS" or _SLURM_STEP in os.environ]
    tasks = max((int(os.environ.get(name) or 1) for name in counts), default=1)
    workers = [name for name in os.environ.get(_TPU_WORKERS, "").split(",") if name]
    return tasks > 1 or len(workers) > 1 or int(os.environ.get(_TPU_SLICES) or 1) > 1
