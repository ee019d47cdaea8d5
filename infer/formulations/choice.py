"""Chooses a way to compute encoder and decoder over windows; all give the same numbers up to rounding."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from flax import nnx
from jaxtyping import Array, Float, PyTree

from earvae_jax.infer.formulations.chunked import ChunkedFormulation, supports
from earvae_jax.infer.formulations.laid_out import LaidOutFormulation
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.layers import Extent, folded
from earvae_jax.model.oobleck import Decoder, Encoder

# (weights, values, extent) -> values
Half = Callable[[PyTree, Float[Array, "B T C"], Extent], Float[Array, "B T2 C2"]]


# In narrower models the transforms cost what they save in products (measured up to 32 channels), and the
# plain modules compile in a fifth of the time.
_MIN_CHUNKED_WIDTH = 64

_GPUS = ("gpu", "cuda", "rocm")

_PLAIN: ContextVar[bool] = ContextVar("plain", default=False)


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


def choose_formulation(config: ModelConfig, platform: str, dtype: str) -> Formulation:
    """The fastest formulation that the config allows on this kind of device."""
    if _PLAIN.get():
        return PlainFormulation()
    narrow = min(config.encoder.channels, config.decoder.channels) < _MIN_CHUNKED_WIDTH
    if platform == "cpu" and dtype == "float32" and supports(config) and not narrow:
        return ChunkedFormulation(config)
    return LaidOutFormulation(dtype) if platform in _GPUS else PlainFormulation()


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """A codec made inside takes the plain formulation on CPUs too: to measure what the other is worth."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def _pure(module: nnx.Module) -> tuple[PyTree, Half]:
    graph, weights = nnx.split(folded(module))
    return nnx.as_pure(weights), lambda weights, x, extent: nnx.merge(graph, weights)(x, extent)
