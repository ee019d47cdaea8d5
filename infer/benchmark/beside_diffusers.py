"""Measures the codec beside diffusers' `AutoencoderOobleck`, which runs a file whole or in tiles.

It makes a model of random weights and gives it to three processes: the codec, diffusers' class, and the same
with `enable_tiling()`. They take turns on the same audio and latents, on the CPUs of this machine in float32.
For each it tells the time, the most memory that its process held, and how far its answer is from that of the
whole file.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float

from earvae_jax import checkpoints
from earvae_jax.command import run_program
from earvae_jax.convert.to_torch import export  # the one import from another application: diffusers' layout
from earvae_jax.errors import UserError
from earvae_jax.infer.benchmark.models import named_model
from earvae_jax.infer.benchmark.one_process import OURS, TILED, WHOLE
from earvae_jax.model.config import ModelConfig
from earvae_jax.receptive_field import decoder_context, encoder_context
from earvae_jax.system import machine

Call = Callable[..., dict[str, Any]]  # one of a process, with the arguments of `one_process.answer`

_CONTENDERS = (OURS, WHOLE, TILED)
_STAGES = ("encode", "decode")
_SETTLE = 0.25  # seconds: torch's threads spin for so long after their work
_PART_OF_MEMORY = 0.6  # that a process may take
_STRETCH = 256  # latents, where the whole file cannot be had
_COLUMNS = (
    "stage",
    "contender",
    "median s (range)",
    "processor s",
    "× real time",
    "time / ours",
    "peak MB",
    "length",
    "distance",
)
_OFF = 1e-3  # of the peak: what is further off is no rounding


@dataclasses.dataclass
class Measured:
    """One contender on one stage and length."""

    seconds: list[float] = dataclasses.field(default_factory=list)  # of each turn
    processors: list[float] = dataclasses.field(default_factory=list)  # seconds of all cores, of each turn
    peak: int | None = None  # bytes
    failed: str | None = None  # why it could not
    output: np.ndarray | None = None


def main(words: Sequence[str] | None = None) -> None:
    """Prints a table for each length."""
    parser = argparse.ArgumentParser(
        prog="python -m earvae_jax.infer.benchmark.beside_diffusers", description=__doc__
    )
    parser.add_argument(
        "--config",
        default="ace_step_1.5.json",
        metavar="JSON",
        help="a file, or the name of a bundled config",
    )
    parser.add_argument("--seconds", nargs="+", type=float, default=[10.0, 70.0, 600.0], help="lengths")
    parser.add_argument("--stages", nargs="+", choices=_STAGES, default=list(_STAGES))
    parser.add_argument("--repeats", type=int, default=3, help="turns; default: 3")
    parser.add_argument(
        "--memory-limit",
        type=float,
        default=_PART_OF_MEMORY * machine.physical_memory() / 1e9,
        metavar="GB",
        help=f"what a process may take; default: {_PART_OF_MEMORY:g} of this machine's memory",
    )
    arguments = parser.parse_args(words)
    if importlib.util.find_spec("diffusers") is None:
        raise UserError("this needs diffusers, which is not installed; run: pip install diffusers")
    with tempfile.TemporaryDirectory() as folder:
        name, model = named_model(None, arguments.config)
        checkpoints.save(Path(folder, "ours.safetensors"), model)
        export(Path(folder, "ours.safetensors"), Path(folder, "theirs"), layout="diffusers")
        config = model.config
        del model  # the processes are to have the memory
        about = ", ".join(f"{what} {value}" for what, value in machine.describe().items())
        sys.stdout.write(f"{name}, float32, at most {arguments.memory_limit:.1f} GB a process\n{about}\n")
        for seconds in arguments.seconds:
            latents = max(1, int(seconds * (config.sample_rate or 44_100)) // config.downsampling_ratio)
            limit = int(arguments.memory_limit * 1e9)
            measure = Measurement(config, Path(folder), latents, limit)
            sys.stdout.write(measure.table(arguments.stages, arguments.repeats))
            sys.stdout.flush()


class Measurement:
    """All contenders on one length.

    Args:
      config: the model's.
      folder: holds the model in both layouts, and takes the arrays.
      latents: length.
      limit: bytes that a process may take.
    """

    def __init__(self, config: ModelConfig, folder: Path, latents: int, limit: int):
        self._config, self._folder, self._latents, self._limit = config, folder, latents, limit
        random = np.random.default_rng(0)
        samples = latents * config.downsampling_ratio
        self._inputs: dict[str, Float[np.ndarray, "L X"]] = {
            "encode": 0.1 * random.standard_normal((samples, config.io_channels), np.float32),
            "decode": random.standard_normal((latents, config.latent_dim), np.float32),
        }

    def table(self, stages: Sequence[str], repeats: int) -> str:
        """The measurements in Markdown."""
        seconds = self._latents * self._config.downsampling_ratio / (self._config.sample_rate or 44_100)
        lines = [
            "",
            f"{seconds:.1f} s of audio, {self._latents} latents, {repeats} turns",
            "",
            f"| {' | '.join(_COLUMNS)} |",
            "|---" * len(_COLUMNS) + "|",
        ]
        notes = []
        with self._processes() as calls:
            for stage in stages:
                rows = self._in_turns(calls, stage, repeats)
                distance = self._distances(calls, stage, rows)
                for name, row in rows.items():
                    if row.failed is not None:
                        cells = [stage, name, "does not fit", *[""] * (len(_COLUMNS) - 3)]
                        lines.append(f"| {' | '.join(cells)} |")
                        notes.append(f"{name}, {stage}: {row.failed}")
                        continue
                    ratios = [a / b for a, b in zip(row.seconds, rows[OURS].seconds, strict=True)]
                    times = f"{min(row.seconds):.2f}–{max(row.seconds):.2f}"
                    median = statistics.median(row.seconds)
                    peak = "" if row.peak is None else f"{row.peak / 1e6:.0f}"
                    lines.append(
                        f"| {stage} | {name} | {median:.2f} ({times}) | "
                        f"{statistics.median(row.processors):.2f} | {seconds / median:.2f} | "
                        f"{statistics.median(ratios):.2f} | {peak} | {distance[name]} |"
                    )
        return "\n".join([*lines, *([""] if notes else []), *notes, ""])

    @contextlib.contextmanager
    def _processes(self) -> Iterator[dict[str, Call]]:
        with contextlib.ExitStack() as stack:
            yield {name: stack.enter_context(self._process(name)) for name in _CONTENDERS}

    @contextlib.contextmanager
    def _process(self, name: str) -> Iterator[Call]:
        """Starts a contender; gives a function that hands it a call, and without one says about it."""
        model = self._folder / ("ours.safetensors" if name == OURS else "theirs")
        words = [sys.executable, "-m", "earvae_jax.infer.benchmark.one_process", name, model, self._limit]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        with subprocess.Popen(
            [str(word) for word in words],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            given, said = process.stdin, process.stdout
            assert given is not None and said is not None  # they are pipes

            def answered() -> dict[str, Any]:
                line = said.readline()
                return json.loads(line) if line else {"failed": f"its process ended ({process.wait()})"}

            about = answered()
            if "failed" in about:
                raise UserError(f"{name}: {about['failed']}; what it wrote above says why")
            logging.info("%s %s is ready", name, about["version"])

            def call(**values: str) -> dict[str, Any]:
                if not values:
                    return about
                if process.poll() is not None:
                    return {"failed": f"its process ended ({process.returncode})"}
                given.write(json.dumps(values) + "\n")
                given.flush()
                return answered()

            yield call
            given.close()

    def _in_turns(self, calls: dict[str, Call], stage: str, repeats: int) -> dict[str, Measured]:
        given = self._folder / "input.npy"
        np.save(given, self._inputs[stage])
        rows = {name: Measured() for name in calls}
        for turn in range(repeats):
            logging.info("%s, %d latents: turn %d of %d", stage, self._latents, turn + 1, repeats)
            for name, row in rows.items():
                if row.failed is not None:
                    continue
                time.sleep(_SETTLE)
                output = self._folder / "output.npy"
                said = calls[name](stage=stage, given=str(given), output=str(output))
                row.failed = said.get("failed")
                if row.failed is None:
                    row.seconds.append(said["seconds"])
                    row.processors.append(said["processors"])
                    row.peak = max(row.peak or 0, said["peak"] or 0) or None
                    row.output = np.load(output)
        if rows[OURS].failed is not None:
            raise UserError(f"{OURS}, {stage}: {rows[OURS].failed}")
        return rows

    def _distances(self, calls: dict[str, Call], stage: str, rows: dict[str, Measured]) -> dict[str, str]:
        """For each contender the length of its answer, and how far that is from the whole file's."""
        unit = 1 if stage == "encode" else self._config.downsampling_ratio
        whole = rows[WHOLE].output
        stretches = {0: whole} if whole is not None else self._stretches(calls, stage)
        cells = {}
        for name, row in rows.items():
            if row.output is None:
                continue
            pairs = []
            for start, truth in stretches.items():
                got = row.output[start * unit :][: len(truth)]
                pairs.append((got, truth[: len(got)]))
            peak = max(1.0, *(float(np.abs(truth).max()) for _, truth in pairs))
            off = [np.abs(got - truth).max(axis=1) / peak for got, truth in pairs]
            largest = max(float(each.max()) for each in off)
            far = sum(int(np.sum(each > _OFF)) for each in off)
            words = "" if name == WHOLE else f"{largest:.1e}" + (f", {far} wrong" if far else "")
            cells[name] = f"{len(row.output)} | {words}"
        return cells

    def _stretches(self, calls: dict[str, Call], stage: str) -> dict[int, np.ndarray]:
        """What a whole file gives at its start, where two tiles meet near its middle, and at its end.

        A convolution sees no further than its receptive field: with so much around it a stretch is as in the
        whole file. The keys are the latents at which they begin.
        """
        encoding = stage == "encode"
        context = (encoder_context if encoding else decoder_context)(self._config)
        ratio = self._config.downsampling_ratio
        per_input, per_output = (ratio, 1) if encoding else (1, ratio)
        step = calls[TILED]()["steps"][stage]
        border = round(round(self._latents / 2 / step) * step)
        last = max(0, self._latents - _STRETCH)
        found = {}
        for start in sorted({0, min(last, max(0, border - _STRETCH // 2)), last}):
            stop = min(self._latents, start + _STRETCH)
            begin, end = max(0, start - context.left), min(self._latents, stop + context.right)
            given, output = self._folder / "stretch.npy", self._folder / "output.npy"
            np.save(given, self._inputs[stage][begin * per_input : end * per_input])
            said = calls[WHOLE](stage=stage, given=str(given), output=str(output))
            if "failed" in said:
                raise UserError(f"{WHOLE}, {stage} of {end - begin} latents: {said['failed']}")
            found[start] = np.load(output)[(start - begin) * per_output : (stop - begin) * per_output]
        return found


if __name__ == "__main__":
    run_program(main)
