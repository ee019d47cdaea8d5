"""How fast this machine convolves, and how many operations the model's convolutions take."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from earvae_jax.model.config import ModelConfig
from earvae_jax.model.layers import conv1d
from earvae_jax.model.oobleck import RESIDUAL_WIDTH

_ELEMENTS = 1 << 20  # in the input of a measured convolution: several milliseconds of work at any width


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
    steps = max(1024, _ELEMENTS // width)
    x = jnp.ones((1, steps, width), dtype)
    kernel = jnp.ones((RESIDUAL_WIDTH, width, width), dtype)
    with jax.default_matmul_precision(precision):
        program = jax.jit(functools.partial(conv1d, padding=RESIDUAL_WIDTH // 2)).lower(x, kernel).compile()
    return lambda: jax.block_until_ready(program(x, kernel)), 2.0 * RESIDUAL_WIDTH * width**2 * steps
