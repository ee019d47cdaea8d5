"""Loudness of whole recordings: integrated, range and true peak (ITU-R BS.1770, EBU R 128)."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from earvae_jax.signal.blocks import overlapping_blocks
from earvae_jax.signal.weighting import bs1770_impulse_response, fir_filter

_SEGMENT_SECONDS = 0.1  # windows of 0.4 s and 3 s, moved by 0.1 s, are means over whole segments
_SEGMENTS_PER_BLOCK = 16
_BLOCKS_PER_CALL = 4
_ABSOLUTE_GATE = -70.0  # LUFS
# Taps of the true-peak interpolator at the signal's own rate.
_PEAK_TAPS = 48


@dataclasses.dataclass(frozen=True)
class Loudness:
    """What a loudness meter shows; None if the recording is too short or too quiet for a value."""

    integrated: float | None  # LUFS
    range: float | None  # LU
    true_peak: float | None  # dBTP


def measure_loudness(audio: Float[np.ndarray, "T C"], sample_rate: int) -> Loudness:
    """Loudness of mono or stereo audio of any length and rate.

    Integrated: 0.4 s windows every 0.1 s, gates at −70 LUFS and 10 LU below the mean above it (BS.1770-5);
    a mono file counts as one channel. Range: 3 s windows every 0.1 s, gates at −70 LUFS and −20 LU, 10th to
    95th percentile (EBU Tech 3342, as ffmpeg's `ebur128` samples it). True peak: 4 × oversampling (2 × from
    96 kHz, none from 192 kHz).
    """
    segment = round(_SEGMENT_SECONDS * sample_rate)
    context = len(bs1770_impulse_response(sample_rate)) - 1
    margin = _PEAK_TAPS // 2
    parts: list[np.ndarray] = []
    peak = 0.0
    batches = overlapping_blocks(
        np.asarray(audio, np.float32),
        _SEGMENTS_PER_BLOCK * segment,
        before=max(context, margin),
        after=margin,
        batch=_BLOCKS_PER_CALL,
    )
    for blocks, remaining in batches:
        block_powers, block_peak = _measure_blocks(blocks, sample_rate)
        # Only segments that the recording fills count; the peak of zeros is zero.
        whole = np.clip(remaining // segment, 0, _SEGMENTS_PER_BLOCK)
        parts += [p[:count] for p, count in zip(np.asarray(block_powers, np.float64), whole, strict=True)]
        peak = max(peak, float(block_peak))
    powers = np.concatenate(parts) if parts else np.zeros(0)
    return Loudness(
        integrated=_integrated(_window_means(powers, 4)),
        range=_range(_window_means(powers, 30)),
        true_peak=20 * math.log10(peak) if peak > 0 else None,
    )


@functools.partial(jax.jit, static_argnames="sample_rate")
def _measure_blocks(
    blocks: Float[Array, "B L C"], sample_rate: int
) -> tuple[Float[Array, "B S"], Float[Array, ""]]:
    """Mean square of each segment after K-weighting, summed over channels, and the largest true peak."""
    segment, margin = round(_SEGMENT_SECONDS * sample_rate), _PEAK_TAPS // 2
    samples = _SEGMENTS_PER_BLOCK * segment
    before = blocks.shape[1] - samples - margin
    weighted = fir_filter(blocks[:, : before + samples], bs1770_impulse_response(sample_rate), delay=0)
    segments = weighted[:, before:].reshape(blocks.shape[0], _SEGMENTS_PER_BLOCK, -1)
    powers = jnp.sum(jnp.square(segments), axis=-1) / segment
    nearby = blocks[:, before - margin :].transpose(0, 2, 1).reshape(-1, samples + 2 * margin)
    return powers, jnp.maximum(jnp.max(jnp.abs(nearby)), jnp.max(jnp.abs(_between(nearby, sample_rate))))


def _between(signals: Float[Array, "S L"], sample_rate: int) -> Float[Array, "S L P"]:
    """The oversampled points between the samples."""
    taps = _interpolator(4 if sample_rate < 96_000 else 2 if sample_rate < 192_000 else 1)
    if taps.shape[1] == 0:
        return signals[..., None]
    return jax.lax.conv_general_dilated(
        signals[..., None],
        jnp.asarray(taps)[:, None],
        (1,),
        "VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=jax.lax.Precision.HIGHEST,
    )


@functools.cache
def _interpolator(factor: int) -> np.ndarray:
    """Windowed-sinc fractional delays 1/factor … (factor − 1)/factor, float32 `[taps, factor − 1]`."""
    fractions = np.arange(1, factor) / factor
    distance = np.arange(_PEAK_TAPS)[:, None] - (_PEAK_TAPS // 2 - 1) - fractions
    window = np.i0(8 * np.sqrt(np.maximum(1 - (2 * distance / _PEAK_TAPS) ** 2, 0))) / np.i0(8)
    taps = np.sinc(distance) * window
    return (taps / taps.sum(axis=0)).astype(np.float32)


def _window_means(powers: np.ndarray, length: int) -> np.ndarray:
    if len(powers) < length:
        return np.zeros(0)
    sums = np.concatenate([[0], np.cumsum(powers)])
    return np.maximum(sums[length:] - sums[:-length], 0) / length


def _lufs(power: np.ndarray | float) -> np.ndarray:
    return -0.691 + 10 * np.log10(np.maximum(power, 1e-20))


def _gated(powers: np.ndarray, relative: float) -> np.ndarray:
    """The windows above the absolute gate, and of those the ones above their mean plus `relative` LU."""
    powers = powers[_lufs(powers) >= _ABSOLUTE_GATE]
    return powers[_lufs(powers) >= _lufs(powers.mean()) + relative] if len(powers) else powers


def _integrated(powers: np.ndarray) -> float | None:
    gated = _gated(powers, -10)
    return float(_lufs(gated.mean())) if len(gated) else None


def _range(powers: np.ndarray) -> float | None:
    levels = np.sort(_lufs(_gated(powers, -20)))
    if not len(levels):
        return None
    # Percentiles counted as ffmpeg counts them; Tech 3342's own rounding may pick the neighbouring window.
    low, high = (levels[max(int(len(levels) * share + 0.5) - 1, 0)] for share in (0.10, 0.95))
    return float(high - low)
