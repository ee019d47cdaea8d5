"""Encoder and decoder for CPUs: each level runs over chunks of time whose activations stay in the cache.

A level is an up- or down-sampling with its three residual units. Memory limits a CPU here, so a level loops
over chunks of a few thousand steps, each with the margin that its convolutions see. Within a chunk the units
work on four phases (`toom_cook`). The loop ends with the file: the part of a window beyond it costs nothing.

With the 148 M parameters of the published model and AVX-512 the plain modules take 1.4 times as long
(`earvae benchmark --with-plain`); below 64 channels this way gains nothing (`choice`).
"""

import functools
from collections.abc import Callable, Sequence
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from earvae_jax.infer.formulations import toom_cook
from earvae_jax.infer.formulations.chunk_plan import Place, Plan, UpWindow, plan_chunks, shift_of, up_window
from earvae_jax.infer.formulations.chunked_weights import (
    ConvWeights,
    HalfWeights,
    LevelWeights,
    SnakeWeights,
    UnitWeights,
    decoder_weights,
    encoder_weights,
)
from earvae_jax.infer.formulations.toom_cook import PHASES, pinned
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.convolution import conv1d
from earvae_jax.model.layers import Extent
from earvae_jax.model.oobleck import DILATIONS, RESIDUAL_WIDTH, Decoder, Encoder
from earvae_jax.model.snake import snake

_OUTER = 3  # steps that the first convolution of the encoder and the last of the decoder see on each side


class ChunkedFormulation:
    """Toom-Cook convolutions over cache-sized chunks, in float32; equal to the modules up to rounding.

    Args:
      config: the model's; `supports` says whether it can be run.
      chunk: steps of a chunk; None chooses what fits the cache.
    """

    # By default XLA removes barriers before it fuses, and then computes a snake again in each of its twenty
    # readers. This keeps the barriers. Without it the numbers are the same, but take 2.6 times as long.
    compiler_options = MappingProxyType({"xla_disable_hlo_passes": "cse_barrier_expander"})
    free_padding = True

    def __init__(self, config: ModelConfig, *, chunk: int | None = None):
        self._config, self._chunk = config, chunk

    def encoder(self, encoder: Encoder) -> tuple[HalfWeights, Callable]:
        """Weights and function of the encoder."""
        strides = self._config.encoder.strides
        return encoder_weights(encoder), functools.partial(encode, strides=strides, chunk=self._chunk)

    def decoder(self, decoder: Decoder) -> tuple[HalfWeights, Callable]:
        """Weights and function of the decoder."""
        config = self._config.decoder
        strides = config.strides[::-1]
        function = functools.partial(decode, strides=strides, tanh=config.final_tanh, chunk=self._chunk)
        return decoder_weights(decoder), function


def supports(config: ModelConfig) -> bool:
    """Whether this file can compute the encoder and decoder of a config."""
    halves = (config.encoder, config.decoder)
    return (
        all(half.use_snake and not half.antialias_activation for half in halves)
        and all(stride % 2 == 0 for half in halves for stride in half.strides)
        and not config.decoder.use_nearest_upsample
    )


def encode(
    weights: HalfWeights,
    audio: Float[Array, "B T C"],
    extent: Extent,
    *,
    strides: Sequence[int],
    chunk: int | None = None,
) -> Float[Array, "B N E"]:
    """Computes what `Encoder` does; T is a multiple of all strides' product. Finite outside the extent."""
    length = audio.shape[1]
    extent = _clipped(extent, length)
    plans = []
    for level, stride in zip(weights.levels, strides, strict=True):
        plans.append(plan_chunks(length, stride, level.channels, chunk, edge=stride // 2))
        length //= stride
    # Each level writes into the buffer that the next one reads, between the zeros of that level's margins.
    places = [Place(plan.margin, plan.span) for plan in plans[1:]] + [Place(0, length)]
    x = _placed(extent.keep(audio), Place(plans[0].margin + _OUTER, plans[0].span + 2 * _OUTER))
    for index, (level, stride) in enumerate(zip(weights.levels, strides, strict=True)):
        first = weights.first if index == 0 else None
        x = _encoder_level(x, level, stride, extent, plans[index], places[index], first)
        extent = extent.downsampled(stride)
    x = extent.keep(snake(x[:, :length], *weights.snake))
    return conv1d(x, *weights.last, padding=1)


def decode(
    weights: HalfWeights,
    latents: Float[Array, "B N D"],
    extent: Extent,
    *,
    strides: Sequence[int],
    tanh: bool,
    chunk: int | None = None,
) -> Float[Array, "B T C"]:
    """Computes what `Decoder` does; `strides` are in the order of its blocks. Finite outside the extent."""
    length = latents.shape[1]
    extent = _clipped(extent, length)
    plans = []
    for index, (level, stride) in enumerate(zip(weights.levels, strides, strict=True)):
        length *= stride
        edge = PHASES if index == len(strides) - 1 else 0  # the last convolution's _OUTER, in whole phases
        plans.append(plan_chunks(length, stride, level.channels, chunk, edge=edge))
    windows = [up_window(plan, stride) for plan, stride in zip(plans, strides, strict=True)]
    places = [window.place for window in windows] + [Place(0, length)]
    x = conv1d(extent.keep(latents), *weights.first, padding=_OUTER)
    x = _placed(x, places[0])
    for index, (level, stride) in enumerate(zip(weights.levels, strides, strict=True)):
        ending = weights if index == len(strides) - 1 else None
        x = _decoder_level(x, level, stride, extent, plans[index], windows[index], places[index + 1], ending)
        extent = extent.upsampled(stride, nearest=False)
    x = x[:, :length]
    return jnp.tanh(x) if tanh else x


def _encoder_level(
    x: Float[Array, "B M C"],
    level: LevelWeights,
    stride: int,
    extent: Extent,
    plan: Plan,
    place: Place,
    first: ConvWeights | None,
) -> Float[Array, "B M2 C2"]:
    """One block, preceded by the encoder's first convolution if `first` is given."""
    outer = 0 if first is None else _OUTER

    def chunk_of(start):
        values = lax.dynamic_slice_in_dim(x, start, PHASES * plan.inputs + 2 * outer, axis=1)
        begun = toom_cook.split(values) if first is None else _first_phases(values, first, plan.inputs)
        phases, time = _units(begun, level.units, start - plan.margin, plan, extent)
        active = toom_cook.join(_activated(phases, level.snake, time, extent))
        # A convolution of width 2s and stride s is one of two taps over s adjacent steps.
        steps = plan.length // stride + 1
        active = active[:, : steps * stride].reshape(x.shape[0], steps, -1)
        return conv1d(active, *level.resample)

    return _over_chunks(chunk_of, plan, plan.length // stride, place, jnp.max(extent.stop))


def _decoder_level(
    x: Float[Array, "B M C"],
    level: LevelWeights,
    stride: int,
    extent: Extent,
    plan: Plan,
    window: UpWindow,
    place: Place,
    ending: HalfWeights | None,
) -> Float[Array, "B M2 C2"]:
    """One block, followed by the decoder's last snake and convolution if `ending` is given."""
    after = extent.upsampled(stride, nearest=False)

    def chunk_of(start):
        first = start // stride
        values = lax.dynamic_slice_in_dim(x, first, window.inputs, axis=1)
        inside = _inside(extent, first - window.place.lead, 1, window.inputs)
        active = pinned(jnp.where(inside, snake(values, *level.snake), 0))
        # The transposed convolution in polyphase form: two taps to s adjacent outputs.
        values = conv1d(active, *level.resample)
        values = values.reshape(x.shape[0], (window.inputs - 1) * stride, -1)
        values = lax.slice_in_dim(values, window.skip, window.skip + PHASES * plan.inputs, axis=1)
        phases, time = _units(toom_cook.split(values), level.units, start - plan.margin, plan, after)
        if ending is None:
            return toom_cook.join(phases)[:, : plan.length]
        return _last(_activated(phases, ending.snake, time, after), ending.last.kernel, plan.length)

    return _over_chunks(chunk_of, plan, plan.length, place, jnp.max(after.stop))


def _over_chunks(
    chunk_of: Callable[[Int[Array, ""]], Float[Array, "B L C"]],
    plan: Plan,
    steps: int,
    place: Place,
    stop: Int[Array, ""],
) -> Float[Array, "B M C"]:
    """The `steps` outputs of each chunk before `stop`, one after the other, at `place` in a buffer."""
    output = jax.eval_shape(chunk_of, jnp.int32(0))
    size = max(place.size, place.lead + plan.chunks * steps)
    buffer = jnp.zeros((output.shape[0], size, output.shape[2]), output.dtype)

    def body(index, buffer):
        values = chunk_of(index * plan.length)
        return lax.dynamic_update_slice_in_dim(buffer, values, place.lead + index * steps, axis=1)

    count = jnp.minimum(-(-stop // plan.length), plan.chunks)
    return lax.fori_loop(0, count, body, buffer)


def _units(
    phases: toom_cook.Phases, units: Sequence[UnitWeights], time: Int[Array, ""], plan: Plan, extent: Extent
) -> tuple[toom_cook.Phases, Int[Array, ""]]:
    """Runs the residual units on phases that begin at `time`; the outputs begin at the time returned."""
    steps = plan.outputs
    wanted = []
    for dilation in reversed(DILATIONS):
        wanted.append(steps)
        steps = toom_cook.inputs_for(steps, dilation)
    for unit, dilation, steps in zip(units, DILATIONS, reversed(wanted), strict=True):
        active = _activated(phases, unit.snake, time, extent)
        wide = toom_cook.convolve(active, unit.kernels, dilation, steps)
        # A 1×1 convolution does not mix times: values outside the file stay outside.
        again = pinned([snake(y + unit.bias, *unit.second_snake) for y in wide])
        shift = shift_of(dilation)
        residual = toom_cook.window(phases, shift, steps)
        phases = [x + conv1d(y, *unit.pointwise) for x, y in zip(residual, again, strict=True)]
        time = time + shift
    return phases, time


def _activated(
    phases: toom_cook.Phases, weights: SnakeWeights, time: Int[Array, ""], extent: Extent
) -> list[Float[Array, "B Q C"]]:
    """The snake of phases that begin at `time`; zero outside the file."""
    inside = [_inside(extent, time + phase, PHASES, x.shape[1]) for phase, x in enumerate(phases)]
    return pinned([jnp.where(keep, snake(x, *weights), 0) for keep, x in zip(inside, phases, strict=True)])


def _first_phases(
    values: Float[Array, "B T C"], first: ConvWeights, steps: int
) -> list[Float[Array, "B Q O"]]:
    """The encoder's first convolution, one strided convolution for each phase."""
    size = PHASES * steps + 2 * _OUTER - (PHASES - 1)
    parts = [lax.slice_in_dim(values, phase, phase + size, axis=1) for phase in range(PHASES)]
    return pinned([conv1d(part, *first, stride=PHASES) for part in parts])


def _last(phases: toom_cook.Phases, kernel: Float[Array, "1 C E"], length: int) -> Float[Array, "B T O"]:
    """The decoder's last convolution, starting PHASES steps after the first time of the phases."""
    # For so few channels, a 1×1 convolution gives the products of all seven taps; shifted, they are summed.
    taps = toom_cook.join([conv1d(x, kernel) for x in phases])
    taps = taps.reshape(*taps.shape[:2], RESIDUAL_WIDTH, -1)
    begin = PHASES - _OUTER
    return jnp.asarray(sum(taps[:, begin + t : begin + t + length, t] for t in range(RESIDUAL_WIDTH)))


def _inside(extent: Extent, time: Int[Array, ""], step: int, count: int) -> Bool[Array, "B Q 1"]:
    times = time + step * lax.broadcasted_iota(jnp.int32, (1, count, 1), 1)
    return (times >= extent.start[:, None, None]) & (times < extent.stop[:, None, None])


def _clipped(extent: Extent, length: int) -> Extent:
    """Limits the extent to the window: as in the modules, zero padding begins there at the latest."""
    return Extent(jnp.maximum(extent.start, 0), jnp.minimum(extent.stop, length))


def _placed(x: Float[Array, "B T C"], place: Place) -> Float[Array, "B M C"]:
    return jnp.pad(x, ((0, 0), (place.lead, place.size - place.lead - x.shape[1]), (0, 0)))
