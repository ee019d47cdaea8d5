"""Chooses a way to compute encoder and decoder over windows; all give the same numbers up to rounding."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from flax import nnx
from jaxtyping import Array, Float, PyTree

from earvae_jax.errors import UserError
from earvae_jax.infer.formulations import rows
from earvae_jax.infer.formulations.chunked import ChunkedFormulation, supports
from earvae_jax.infer.formulations.laid_out import LaidOutFormulation
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.layers import Extent, folded
from earvae_jax.model.oobleck import Decoder, Encoder
from earvae_jax.system.machine import GPUS

# (weights, values, extent) -> values
Half = Callable[[PyTree, Float[Array, "B T C"], Extent], Float[Array, "B T2 C2"]]


# In narrower models the transforms cost what they save in products (measured up to 32 channels), and the
# plain modules compile in a fifth of the time.
_MIN_CHUNKED_WIDTH = 64

# NVIDIA GPUs on which kernels for the tails of units were measured to be faster: an H200's.
_MEASURED_WITH_TAILS = ("9.0",)

NAMES = ("auto", "plain", "chunked", "cudnn", "fused", "tails")


class Formulation(Protocol):
    """Turns a half of the model into weights and a pure function of them."""

    @property
    def compiler_options(self) -> Mapping[str, Any] | None: ...

    # Whether the part of a window beyond the end of the file costs nothing.
    @property
    def free_padding(self) -> bool: ...

    def encoder(self, encoder: Encoder) -> tuple[PyTree, Half]: ...

    def decoder(self, decoder: Decoder) -> tuple[PyTree, Half]: ...


class PlainFormulation:
    """Runs the model's own modules, with folded weights."""

    compiler_options = None
    free_padding = False

    def encoder(self, encoder: Encoder) -> tuple[PyTree, Half]:
        """Weights and function of the encoder."""
        return _pure(encoder)

    def decoder(self, decoder: Decoder) -> tuple[PyTree, Half]:
        """Weights and function of the decoder."""
        return _pure(decoder)


def choose_formulation(
    config: ModelConfig,
    platform: str,
    dtype: str,
    *,
    name: str = "auto",
    exact: bool = True,
    shared_memory: int | None = None,
    compute_capability: str | None = None,
) -> Formulation:
    """The formulation of this name; "auto" is the fastest that was measured on a CPU or GPU of this kind, and
    on others, which no run has measured yet, the leanest of those that compute as the modules do.

    Args:
      config: the model's.
      platform: "cpu", "gpu" or "tpu".
      dtype: type of the activations.
      name: one of `NAMES`.
      exact: whether products of float32 must not be rounded.
      shared_memory: bytes that a program of a GPU's grid may take, if the device tells.
      compute_capability: of an NVIDIA GPU, as "9.0".

    Raises:
      UserError: this formulation cannot run here.
    """
    if name == "plain":
        return PlainFormulation()
    if name == "chunked":
        return _chunked(config, platform, dtype)
    if name == "cudnn":
        if platform not in GPUS:
            raise UserError(f"cuDNN computes on a GPU, and this is a {platform.upper()}: use auto")
        return LaidOutFormulation(dtype)
    if name in ("fused", "tails"):
        return _fused(config, platform, dtype, exact, shared_memory, tails_alone=name == "tails")
    if name != "auto":
        raise UserError(f"formulation {name!r}: choose one of {', '.join(NAMES)}")
    narrow = min(config.encoder.channels, config.decoder.channels) < _MIN_CHUNKED_WIDTH
    if platform == "cpu" and dtype == "float32" and supports(config) and not narrow:
        return ChunkedFormulation(config)
    if platform == "tpu" and rows.supports(config):
        return rows.RowsFormulation(config, dtype)
    if platform not in GPUS:
        return PlainFormulation()
    if dtype == "bfloat16" and compute_capability in _MEASURED_WITH_TAILS:
        with contextlib.suppress(UserError):  # no unit of this model has such a kernel
            return _fused(config, "gpu", dtype, exact, shared_memory, tails_alone=True)
    return LaidOutFormulation(dtype)


def _chunked(config: ModelConfig, platform: str, dtype: str) -> Formulation:
    if platform != "cpu":
        raise UserError(f"the chunked formulation is for CPUs, and this is a {platform.upper()}: use auto")
    if dtype != "float32":
        raise UserError(f"the chunked formulation computes in float32, not {dtype}: use auto")
    if not supports(config):
        raise UserError(
            "the chunked formulation takes models with snakes, even strides and transposed convolutions, and "
            "without antialiased activations; this is another: use auto"
        )
    return ChunkedFormulation(config)


def _fused(
    config: ModelConfig,
    platform: str,
    dtype: str,
    exact: bool,
    shared_memory: int | None,
    *,
    tails_alone: bool,
) -> Formulation:
    if platform == "gpu" and dtype == "float32" and exact:
        # Without tensor cores arithmetic is the limit, and the kernels would gain nothing.
        raise UserError("these kernels round products on a GPU: use them with tf32 or bfloat16")
    # Here, since Pallas takes a while to import and few ask for it.
    from earvae_jax.infer.formulations.fused.formulation import FusedFormulation

    return FusedFormulation(config, platform, dtype, shared_memory=shared_memory, tails_alone=tails_alone)


def _pure(module: nnx.Module) -> tuple[PyTree, Half]:
    graph, weights = nnx.split(folded(module))
    return nnx.as_pure(weights), lambda weights, x, extent: nnx.merge(graph, weights)(x, extent)
