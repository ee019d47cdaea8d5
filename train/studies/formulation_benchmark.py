"""Measures what the forms for CPUs gain: `python -m earvae_jax.train.studies.formulation_benchmark`.

It times whole training steps in the sizes of `step_benchmark`, as they are and with each function of
`earvae_jax.train.formulations.choice` in its plain form, in turns in one process. It prints the medians, and
the medians of the ratios within a turn. Each memory figure comes from a process of its own.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from earvae_jax.command import run_program
from earvae_jax.system import machine
from earvae_jax.train.formulations.choice import NAMES, plain
from earvae_jax.train.studies.step_benchmark import jax_step, step_memory, train_configs

_VARIANTS = {"as it is": (), **{f"plain {name}": (name,) for name in NAMES}, "all plain": NAMES}
_REPEATS = 7


def main(words: Sequence[str] | None = None) -> None:
    """Prints a Markdown table."""
    program = "python -m earvae_jax.train.studies.formulation_benchmark"
    argparse.ArgumentParser(prog=program, description=__doc__).parse_args(words)
    about = ", ".join(f"{name} {value}" for name, value in machine.describe().items())
    lines = [about, "", "| model | step | way | s | of what is used | MB |", "|---|---|---|---|---|---|"]
    for name, config in train_configs().items():
        for kind in ("generator", "adversarial"):
            calls = {}
            for way, names in _variants(kind).items():
                with plain(*names):
                    calls[way] = jax_step(config, kind == "adversarial")
                    calls[way]()
            times: dict[str, list[float]] = {way: [] for way in calls}
            for _ in range(_REPEATS):
                for way, call in calls.items():
                    started = time.perf_counter()
                    call()
                    times[way].append(time.perf_counter() - started)
            for way, taken in times.items():
                pairs = zip(taken, times["as it is"], strict=True)
                ratio = statistics.median(own / used for own, used in pairs)
                words = [sys.executable, "-m", __spec__.name, name, kind, way]
                done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
                cells = [name, kind, way, f"{statistics.median(taken):.3f}", f"{ratio:.2f}", done.stdout]
                lines.append("| " + " | ".join(cells) + " |")
    sys.stdout.write("\n".join(lines) + "\n")


def _variants(kind: str) -> dict[str, tuple[str, ...]]:
    """The variants that differ: a generator's step contains only one of the functions."""
    chosen = ("as it is", "plain gradient_stored") if kind == "generator" else _VARIANTS
    return {way: _VARIANTS[way] for way in chosen}


if __name__ == "__main__":
    if len(sys.argv) == 4:
        size, kind, way = sys.argv[1:]
        with plain(*_VARIANTS[way]):
            used = step_memory(train_configs()[size], "jax", adversarial=kind == "adversarial")
        sys.stdout.write("" if used is None else f"{used / 1e6:.0f}")
    else:
        run_program(main)
