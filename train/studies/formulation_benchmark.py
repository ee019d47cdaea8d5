"""Measures what the forms for CPUs gain: `python -m earvae_jax.train.studies.formulation_benchmark`.

It times whole training steps in the sizes of `step_benchmark`, as they are and with functions of
`train/formulations/choice.py` in their plain form, in turns in one process. It prints the medians, and the
medians of the ratios within a turn. Each memory figure comes from a process of its own.

`conv_stack` is plain only together with `in_one_call`: XLA computes its own convolution without its library
in a call that is not inlined, forty times slower, which nobody would do.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from earvae_jax.command import run_program
from earvae_jax.system import machine
from earvae_jax.train.formulations.choice import NAMES, plain
from earvae_jax.train.studies.step_benchmark import jax_step, step_memory, train_configs

_VARIANTS = {
    "as it is": (),
    "plain gradient_stored": ("gradient_stored",),
    "plain in_one_call": ("in_one_call",),
    "plain in_one_call and conv_stack": ("in_one_call", "conv_stack"),
    "all plain": NAMES,
}
_KINDS = ("generator", "adversarial")


def main(words: Sequence[str] | None = None) -> None:
    """Prints a Markdown table, the rows of one step as soon as they are measured."""
    program = "python -m earvae_jax.train.studies.formulation_benchmark"
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("--model", nargs="+", default=["demo", "quarter width"], metavar="NAME")
    parser.add_argument("--step", nargs="+", default=_KINDS, choices=_KINDS)
    parser.add_argument("--repeats", type=int, default=7, help="turns; default: 7")
    asked = parser.parse_args(words)
    sys.stdout.write(", ".join(f"{name} {value}" for name, value in machine.describe().items()) + "\n\n")
    sys.stdout.write("| model | step | way | s | of what is used | MB |\n|---|---|---|---|---|---|\n")
    for name in asked.model:
        for kind in asked.step:
            for row in _rows(name, kind, asked.repeats):
                sys.stdout.write("| " + " | ".join(row) + " |\n")
                sys.stdout.flush()


def _rows(name: str, kind: str, repeats: int) -> Iterator[list[str]]:
    config = train_configs()[name]
    calls = {}
    for way, names in _variants(kind).items():
        with plain(*names):
            calls[way] = jax_step(config, kind == "adversarial")
            calls[way]()
    times: dict[str, list[float]] = {way: [] for way in calls}
    for _ in range(repeats):
        for way, call in calls.items():
            started = time.perf_counter()
            call()
            times[way].append(time.perf_counter() - started)
    calls.clear()  # the memory is measured in processes beside this one
    for way, taken in times.items():
        pairs = zip(taken, times["as it is"], strict=True)
        ratio = statistics.median(own / used for own, used in pairs)
        words = [sys.executable, "-m", "earvae_jax.train.studies.formulation_benchmark", name, kind, way]
        megabytes = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
        yield [name, kind, way, f"{statistics.median(taken):.3f}", f"{ratio:.2f}", megabytes]


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
