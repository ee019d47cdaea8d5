"""The machine that a measurement is made on: its name, its memory, and how fast it convolves."""

import functools
import os
import platform
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from earvae_jax.config import ModelConfig
from earvae_jax.layers import conv1d
from earvae_jax.oobleck import RESIDUAL_WIDTH

_ELEMENTS = 1 << 20  # of a measured convolution's input: several milliseconds of work at any width


def describe() -> dict[str, str | int]:
    """Processor, its cores that this process may use, the devices of JAX, and versions."""
    devices = jax.local_devices()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "devices": f"{len(devices)} × {devices[0].device_kind}",
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def memory_used_at_most(function: Callable[[], object]) -> int | None:
    """Bytes by which the process grows while `function` runs, at most; None where that is not told."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    except OSError:
        return None
    before = _status("VmRSS")
    function()
    return max(0, _status("VmHWM") - before)


def convolutions(config: ModelConfig, dtype: str, precision: str | None) -> dict[str, tuple[Callable, float]]:
    """Single convolutions of the model's residual units, alone: (function that waits, operations) by name."""
    return {
        f"{width} channels": _convolution(width, dtype, precision)
        for width in sorted(set(config.encoder.widths[:-1]))
    }


def operations_per_latent(config: ModelConfig) -> dict[str, float]:
    """Floating-point operations of the direct convolutions, two for each product; without the transformer."""
    encoder, decoder = config.encoder, config.decoder
    ratio = config.downsampling_ratio
    encode = ratio * RESIDUAL_WIDTH * encoder.in_channels * encoder.widths[0]
    encode += _levels(encoder.widths, encoder.strides, ratio)
    encode += 3 * encoder.widths[-1] * encoder.latent_dim
    decode = RESIDUAL_WIDTH * decoder.latent_dim * decoder.widths[-1]
    decode += _levels(decoder.widths, decoder.strides, ratio)
    decode += ratio * RESIDUAL_WIDTH * decoder.widths[0] * decoder.out_channels
    return {"encode": 2 * encode, "decode": 2 * decode, "round trip": 2 * (encode + decode)}


def _levels(widths: Sequence[int], strides: Sequence[int], steps: int) -> int:
    """Products of the blocks; a transposed convolution has those of the strided one that mirrors it."""
    total = 0
    for narrow, wide, stride in zip(widths[:-1], widths[1:], strides, strict=True):
        total += steps * 3 * (RESIDUAL_WIDTH + 1) * narrow**2
        steps //= stride
        total += steps * 2 * stride * narrow * wide
    return total


def _convolution(width: int, dtype: str, precision: str | None) -> tuple[Callable, float]:
    steps = max(1024, _ELEMENTS // width)
    x = jnp.ones((1, steps, width), dtype)
    kernel = jnp.ones((RESIDUAL_WIDTH, width, width), dtype)
    with jax.default_matmul_precision(precision):
        program = jax.jit(functools.partial(conv1d, padding=RESIDUAL_WIDTH // 2)).lower(x, kernel).compile()
    return lambda: jax.block_until_ready(program(x, kernel)), 2.0 * RESIDUAL_WIDTH * width**2 * steps


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"^{name}:\s*(\d+) kB$", text, re.MULTILINE).group(1))
