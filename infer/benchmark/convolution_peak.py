"""How fast this machine convolves, and how many operations the model's convolutions take."""

import functools
from collections.abc import Callable, Sequence

import jax

from earvae_jax.model.config import ModelConfig
from earvae_jax.model.layers import conv1d
from earvae_jax.model.oobleck import RESIDUAL_WIDTH

# In the input of a measured convolution, and how often it runs for one waiting: milliseconds of work at any
# width. A GPU would take longer to start and to answer than for a CPU's million.
_ELEMENTS, _RUNS = 1 << 20, 1
_ELEMENTS_ON_ACCELERATOR, _RUNS_ON_ACCELERATOR = 1 << 26, 8


def convolutions(config: ModelConfig, dtype: str, precision: str | None) -> dict[str, tuple[Callable, float]]:
    """Each convolution of the model's residual units by name: a call that waits for it, its operations."""
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
    """Products of the blocks; a transposed convolution has as many as the strided one that mirrors it."""
    total = 0
    for narrow, wide, stride in zip(widths[:-1], widths[1:], strides, strict=True):
        total += steps * 3 * (RESIDUAL_WIDTH + 1) * narrow**2
        steps //= stride
        total += steps * 2 * stride * narrow * wide
    return total


def _convolution(width: int, dtype: str, precision: str | None) -> tuple[Callable, float]:
    on_cpu = jax.default_backend() == "cpu"
    elements, runs = (_ELEMENTS, _RUNS) if on_cpu else (_ELEMENTS_ON_ACCELERATOR, _RUNS_ON_ACCELERATOR)
    steps = max(1024, elements // width)
    keys = jax.random.split(jax.random.key(0))
    # Not of equal numbers, which a GPU multiplies faster.
    x = jax.random.normal(keys[0], (1, steps, width)).astype(dtype)
    kernel = jax.random.normal(keys[1], (RESIDUAL_WIDTH, width, width)).astype(dtype)
    with jax.default_matmul_precision(precision):
        program = jax.jit(functools.partial(conv1d, padding=RESIDUAL_WIDTH // 2)).lower(x, kernel).compile()

    def call() -> jax.Array:
        for _ in range(runs):
            result = program(x, kernel)
        return jax.block_until_ready(result)

    return call, 2.0 * runs * RESIDUAL_WIDTH * width**2 * steps
