"""Measures speed and memory of this project and of PyTorch on the same model, in turns in one run."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from absl import logging

from earvae_jax.errors import UserError
from earvae_jax.infer.benchmark import convolution_peak
from earvae_jax.infer.benchmark.contenders import (
    Contender,
    codec_contender,
    diffusers_contender,
    torch_contenders,
)
from earvae_jax.infer.engine.compiled import DTYPES
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.vae import EarVAE
from earvae_jax.system import machine

# After their work, torch's OpenMP threads spin for so long and would slow down the next contender.
FALLBACK_RATE = 44_100  # Hz, of models that state none: speed does not depend on it, but the codec wants one
_SETTLE = 0.25  # seconds


@dataclasses.dataclass(frozen=True)
class Row:
    """One stage of one contender; times in seconds."""

    contender: str
    stage: str
    median: float
    fastest: float
    slowest: float
    realtime: float  # seconds of audio in one second
    peak_fraction: float  # operations of the direct convolutions per second, as a fraction of the peak
    compile_seconds: float  # additional time of the first call
    memory: int | None  # largest growth of the process in host memory, bytes


@dataclasses.dataclass(frozen=True)
class Result:
    """A whole run."""

    machine: dict[str, str | int]
    model: str
    dtype: str
    audio_seconds: float
    repeats: int
    convolutions: dict[str, float]  # operations per second of single convolutions, medians
    device_memory: dict[str, int]  # peak bytes of accelerator memory, by contender
    rows: tuple[Row, ...]
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)  # contenders, and why they cannot run

    @property
    def peak(self) -> float:
        """Operations per second of the fastest single convolution."""
        return max(self.convolutions.values())

    def to_dict(self) -> dict[str, Any]:
        """The result as values for JSON."""
        return {**dataclasses.asdict(self), "peak": self.peak}

    def table(self) -> str:
        """The result in Markdown: the machine, then one row for each stage and contender."""
        about = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        fastest = max(self.convolutions, key=self.convolutions.__getitem__)
        lines = [
            f"{self.model}, {self.dtype}, {self.audio_seconds:.1f} s of audio, {self.repeats} rounds",
            about,
            f"convolution peak {self.peak / 1e9:.0f} GFLOP/s ({fastest})",
            *(f"{name}: {size / 1e6:.0f} MB on the device" for name, size in self.device_memory.items()),
            *(f"{name} is left out: {reason}" for name, reason in self.left_out.items()),
            "",
            "| stage | contender | median s (range) | × real time | time / ours | of peak | compile s | MB |",
            "|---|---|---|---|---|---|---|---|",
        ]
        ours = {row.stage: row.median for row in self.rows if row.contender == self.rows[0].contender}
        for row in sorted(self.rows, key=lambda row: list(ours).index(row.stage)):
            memory = "" if row.memory is None else f"{row.memory / 1e6:.0f}"
            lines.append(
                f"| {row.stage} | {row.contender} | {row.median:.3f} ({row.fastest:.3f}–{row.slowest:.3f}) | "
                f"{row.realtime:.2f} | {row.median / ours[row.stage]:.2f} | "
                f"{row.peak_fraction:.0%} | {row.compile_seconds:.1f} | {memory} |"
            )
        return "\n".join(lines) + "\n"


def measure(
    model: EarVAE,
    *,
    name: str,
    seconds: float,
    repeats: int,
    dtype: str = "float32",
    with_compile: bool = True,
    with_plain: bool = False,
    formulation: str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    with_diffusers: bool = False,
) -> Result:
    """Times encoding, decoding and both, in turns; without torch it measures JAX alone.

    Args:
      name: the model's name in the report.
      seconds: length of the audio, rounded up to whole latents.
      with_compile: whether to measure torch.compile too.
      with_plain: whether to measure the codec in the plain formulation too, which a CPU does not take.
      formulation: that of the codec which the others are compared with, as `Codec` takes it.
      batch_size: windows that the codec computes together.
      with_diffusers: whether to measure diffusers' class too.

    Raises:
      UserError: diffusers' class is asked for, but cannot be such a model, or it or torch is not installed.
    """
    config = model.config
    ratio = config.downsampling_ratio
    rate = config.sample_rate or FALLBACK_RATE
    count = latents_of(config, seconds)
    generator = np.random.default_rng(0)
    audio = 0.1 * generator.standard_normal((count * ratio, config.io_channels)).astype(np.float32)
    latents = generator.standard_normal((count, config.latent_dim)).astype(np.float32)
    inputs = model, audio, latents, dtype
    contenders = [codec_contender(*inputs, formulation=formulation, batch_size=batch_size)]
    if with_plain and formulation != "plain":
        contenders.append(codec_contender(*inputs, formulation="plain", batch_size=batch_size))
    left_out = {}
    try:
        contenders += torch_contenders(*inputs, with_compile=with_compile)
    except UserError as error:
        logging.info("measuring JAX alone: %s", error)
        left_out["torch"] = str(error)
    if with_diffusers:
        contenders.append(diffusers_contender(*inputs))
    contenders, first, failed = _first_calls(contenders)
    convolutions = convolution_peak.convolutions(config, *DTYPES[dtype])
    for convolve, _ in convolutions.values():
        convolve()
    calls: dict[Any, Callable[[], object]] = {
        (c.name, stage): call for c in contenders for stage, call in c.stages.items()
    }
    calls |= {("convolution", shape): convolve for shape, (convolve, _) in convolutions.items()}
    times = _in_turns(calls, repeats)
    memory = {key: machine.memory_used_at_most(call) for key, call in calls.items()}
    rates = {
        shape: operations / statistics.median(times["convolution", shape])
        for shape, (_, operations) in convolutions.items()
    }
    operations = convolution_peak.operations_per_latent(config)
    duration = count * ratio / rate
    rows = []
    for contender in contenders:
        for stage in contender.stages:
            taken = times[contender.name, stage]
            median = statistics.median(taken)
            rows.append(
                Row(
                    contender.name,
                    stage,
                    median,
                    min(taken),
                    max(taken),
                    realtime=duration / median,
                    peak_fraction=count * operations[stage] / median / max(rates.values()),
                    compile_seconds=max(0.0, first[contender.name, stage] - median),
                    memory=memory[contender.name, stage],
                )
            )
    device_memory = {c.name: peak for c in contenders if (peak := c.device_peak()) is not None}
    about = machine.describe(), name, dtype, duration, repeats, rates, device_memory
    return Result(*about, tuple(rows), left_out | failed)


def latents_of(config: ModelConfig, seconds: float) -> int:
    """Latents of so much audio, at least one."""
    samples = int(seconds * (config.sample_rate or FALLBACK_RATE))
    return max(1, -(-samples // config.downsampling_ratio))


def _first_calls(
    contenders: Sequence[Contender],
) -> tuple[list[Contender], dict[tuple[str, str], float], dict[str, str]]:
    """Runs everything once; returns those that can run, how long it took, and why the others cannot."""
    able: list[Contender] = []
    first: dict[tuple[str, str], float] = {}
    failed: dict[str, str] = {}
    for contender in contenders:
        logging.info("warming up %s", contender.name)
        try:
            for stage, call in contender.stages.items():
                first[contender.name, stage] = _timed(call)
        except RuntimeError as error:
            if contender is contenders[0]:
                raise
            # torch.compile needs a compiler that not every machine has; a whole file may not fit on a GPU.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            logging.warning("%s is left out: %s", contender.name, reason)
            failed[contender.name] = reason
        else:
            able.append(contender)
    return able, first, failed


def _in_turns(calls: dict[Any, Callable[[], object]], repeats: int) -> dict[Any, list[float]]:
    times: dict[Any, list[float]] = {key: [] for key in calls}
    for turn in range(repeats):
        logging.info("round %d of %d", turn + 1, repeats)
        for key, call in calls.items():
            time.sleep(_SETTLE)
            times[key].append(_timed(call))
    return times


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
