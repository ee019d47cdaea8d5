"""Measures what several processes cost a training step: `python -m earvae_jax.train.studies.hosts_benchmark`.

It starts processes with simulated devices, which take the demo's generator steps together. They agree on
whether to stop before each step, as rarely as a run does, and never, in turns of some steps.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from earvae_jax.command import run_program

_PROGRAM = "earvae_jax.train.studies.hosts_benchmark"
_OVERRIDES = ("adversarial=null", "data.crop_samples=8192", "objective.n_ffts=[512]")


def main(words: Sequence[str] | None = None) -> int | None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(prog=f"python -m {_PROGRAM}", description=__doc__)
    parser.add_argument("--processes", type=int, default=2, help="default: 2")
    parser.add_argument("--devices", type=int, default=1, help="of each; default: 1")
    parser.add_argument("--steps", type=int, default=5, help="of a turn; default: 5")
    parser.add_argument("--turns", type=int, default=3, help="default: 3")
    parser.add_argument("--join", metavar="HOST:PORT", help=argparse.SUPPRESS)  # of its own processes
    parser.add_argument("--index", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args(words)
    if asked.join is None:
        return _start(asked)
    _measure(asked)
    return None


def _start(asked: argparse.Namespace) -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        address = f"localhost:{listener.getsockname()[1]}"
    flags = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={asked.devices}".strip()
    )
    # Simulated devices wait for each other on a machine of few cores that does not say it has more.
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "NPROC": "16", "XLA_FLAGS": flags}
    words = [sys.executable, "-m", _PROGRAM, "--join", address]
    for name in ("processes", "devices", "steps", "turns"):
        words += [f"--{name}", str(getattr(asked, name))]
    started = []
    try:
        for index in range(asked.processes):
            shown = None if index == 0 else subprocess.DEVNULL
            started.append(subprocess.Popen([*words, "--index", str(index)], env=environment, stdout=shown))
        return max(process.wait() for process in started)
    finally:
        for process in started:
            process.kill()


def _measure(asked: argparse.Namespace) -> None:
    import jax

    jax.distributed.initialize(asked.join, asked.processes, asked.index)
    import numpy as np

    from earvae_jax.system import machine
    from earvae_jax.system.between_processes import gather_numbers
    from earvae_jax.train.config import TrainConfig, bundled_or_file
    from earvae_jax.train.run.agreement import Agreement
    from earvae_jax.train.run.step_program import StepProgram

    overrides = [*_OVERRIDES, f"data.batch_size={2 * asked.processes * asked.devices}"]
    config = TrainConfig.from_json(bundled_or_file("train_demo.json"), overrides)
    program = StepProgram(config, jax.devices())
    state = program.initial_state(None)
    share = config.data.batch_size // asked.processes
    shape = (share, config.data.crop_samples, config.model_config.io_channels)
    noise = 0.1 * np.random.default_rng(asked.index).standard_normal(shape, np.float32)
    agreement = Agreement()
    exchanges: list[float] = []

    def exchange() -> None:
        jax.block_until_ready(state)  # a step in flight would count
        started = time.perf_counter()
        gather_numbers(np.zeros(2))
        exchanges.append(time.perf_counter() - started)

    ways: dict[str, Callable[[], object]] = {
        "never": lambda: None,
        "as a run does": lambda: agreement.to_stop(False),
        "before each step": exchange,
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(-1, asked.turns):  # the first compiles
        for way, agree in ways.items():
            started = time.perf_counter()
            for _ in range(asked.steps):
                agree()
                audio = jax.make_array_from_process_local_data(program.split, noise)
                state, terms = program.run(state, audio, adversarial=False)
                jax.block_until_ready(terms)
            if turn >= 0:
                times[way].append((time.perf_counter() - started) / asked.steps)
    lines = [", ".join(f"{name} {value}" for name, value in machine.describe().items()), ""]
    lines.append(f"{asked.processes} processes of {asked.devices} simulated devices; one exchange takes ")
    lines[-1] += f"{1000 * statistics.median(exchanges):.2f} ms (at most {1000 * max(exchanges):.2f})"
    lines += ["", "| they agree | step s, median (range) |", "|---|---|"]
    for way, taken in times.items():
        lines.append(f"| {way} | {statistics.median(taken):.4f} ({min(taken):.4f}–{max(taken):.4f}) |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    run_program(main)
