"""Spectral distances and phase coherence of two recordings, accumulated block by block.

Three compiled programs serve all lengths, and memory stays that of a few blocks. The sums over blocks equal
those over the whole file: frames lie where a whole-file STFT with reflected ends has them.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal
from jaxtyping import Array, Float

from earvae_jax.signal.blocks import overlapping_blocks
from earvae_jax.signal.spectral import frame, hann_window, magnitude, mel_filters, power
from earvae_jax.signal.weighting import a_weighting_fir

STFT_SIZES = (4096, 2048, 1024, 512, 256, 128)
MEL_SIZES = COHERENCE_SIZES = (4096, 2048, 1024, 512)
N_MELS = 64
CURVE_SIZE = 4096  # resolution of coherence over frequency
_REACH = max(STFT_SIZES) // 2
_STEP = 1 << 16  # samples a block advances; a multiple of every hop
_SHORT_STEP = 1 << 14  # for a crop, which would fill little of a long block
_BLOCKS_PER_CALL = 4  # for audio longer than a block
_WEIGHT_THRESHOLD = 1e-6  # products of magnitudes below it have no phase
_LEAST_WEIGHT = 1e-8  # the floor of the denominators in the published coherence
_MEL_FLOOR = 1e-12  # only a filter too narrow for any bin reaches it, and then counts as equal


@dataclasses.dataclass(frozen=True)
class SpectralMetrics:
    """Distances and coherences of a pair; None where they are undefined.

    Attributes:
      stft_distance, mel_distance: auraloss' A-weighted multi-resolution distances.
      icpc: intra-channel phase coherence, the mean over channels that are not silent.
      ccpc: cross-channel phase coherence; None for mono and where a channel is silent.
      frequencies: the frequencies of the curves, `[F]` in Hz.
      icpc_curve, ccpc_curve: coherence over time at each frequency, `[F]`, NaN where nothing sounds;
        `ccpc_curve` is None for mono and where a channel of the original is silent.
    """

    stft_distance: float | None
    mel_distance: float | None
    icpc: float | None
    ccpc: float | None
    frequencies: Float[np.ndarray, " F"]
    icpc_curve: Float[np.ndarray, " F"]
    ccpc_curve: Float[np.ndarray, " F"] | None


def measure_spectra(
    original: Float[np.ndarray, "T C"], reconstruction: Float[np.ndarray, "T C"], sample_rate: int
) -> SpectralMetrics:
    """Measures a pair of the same shape, mono or stereo; everything is None below 2049 samples."""
    frequencies = np.arange(CURVE_SIZE // 2 + 1) * sample_rate / CURVE_SIZE
    samples, channels = original.shape
    if samples <= _REACH:
        nothing = np.full(len(frequencies), np.nan)
        return SpectralMetrics(None, None, None, None, frequencies, nothing, None)
    taps = a_weighting_fir(sample_rate)[:, None]
    signals = [np.asarray(x, np.float32) for x in (original, reconstruction)]
    signals += [scipy.signal.oaconvolve(x, taps, mode="same", axes=0) for x in signals]
    padded = np.concatenate([np.pad(x, ((_REACH, _REACH), (0, 0)), mode="reflect") for x in signals], axis=1)
    step = _SHORT_STEP if len(padded) <= _SHORT_STEP else _STEP
    batch = 1 if len(padded) <= step else _BLOCKS_PER_CALL
    batches = overlapping_blocks(padded, step, before=0, after=2 * _REACH, batch=batch)
    totals: dict[str, Any] = {}
    for blocks, remaining in batches:
        sums = _block_sums(blocks, remaining - 2 * _REACH, channels, sample_rate)
        sums = jax.tree.map(
            lambda x: np.asarray(x, np.complex128 if np.iscomplexobj(x) else np.float64), sums
        )
        totals = jax.tree.map(np.add, totals, sums) if totals else sums
    silent = not original.any()
    # The original's cross-channel phase needs both channels; the weights come from the reconstruction alone.
    crossed = channels == 2 and original.any(axis=0).all()
    return SpectralMetrics(
        None if silent else _distance(totals, "stft", STFT_SIZES),
        None if silent else _distance(totals, "mel", MEL_SIZES),
        _coherence(totals, "icpc"),
        _coherence(totals, "ccpc") if crossed else None,
        frequencies,
        _curve(totals, "icpc"),
        _curve(totals, "ccpc") if crossed else None,
    )


@functools.partial(jax.jit, static_argnames=("channels", "sample_rate"))
def _block_sums(blocks: Float[Array, "B L S"], last: Array, channels: int, sample_rate: int) -> dict:
    """Sums over the frames that are centred at or before sample `last` of their block.

    Signals are original, reconstruction, and both A-weighted, each with its channels.
    """
    step = blocks.shape[1] - 2 * _REACH
    signals = blocks.reshape(*blocks.shape[:2], 4, channels).transpose(2, 0, 3, 1)  # [4, B, C, L]
    sums = {}
    for n_fft in STFT_SIZES:
        hop, start = n_fft // 4, _REACH - n_fft // 2
        cut = signals[..., start : start + step + n_fft - hop]
        wanted = cut if n_fft in COHERENCE_SIZES else cut[2:]
        spectra = jnp.fft.rfft(frame(wanted, n_fft, hop) * hann_window(n_fft))  # [S, B, C, K, F]
        exists = (jnp.arange(step // hop) * hop <= last[:, None])[:, None, :, None]  # [B, 1, K, 1]
        target, prediction = (magnitude(x) for x in spectra[-2:])
        sums[f"stft {n_fft}"] = _distance_sums(prediction, target, exists)
        if n_fft in MEL_SIZES:
            filters = mel_filters(sample_rate, n_fft, N_MELS)
            mels = [jnp.dot(x, filters, precision="highest") for x in (prediction, target)]
            prediction, target = (jnp.maximum(x, _MEL_FLOOR) for x in mels)
            sums[f"mel {n_fft}"] = _distance_sums(prediction, target, exists)
        if n_fft in COHERENCE_SIZES:
            sums |= _coherence_sums(spectra[1], spectra[0], exists, n_fft)
    return sums


def _distance_sums(prediction: Array, target: Array, exists: Array) -> Float[Array, "4"]:
    """Σ (Y − X)², Σ Y², Σ |ln X − ln Y| and the number of bins, as auraloss' distance takes them."""
    terms = (jnp.square(target - prediction), jnp.square(target), jnp.abs(jnp.log(prediction / target)))
    # This is not a sum of ones like the others: in jaxlib 0.10.2 and 0.11 the CPU's reductions have a race in
    # sums over broadcast numbers (github.com/tensorflow/tensorflow/issues/126812).
    count = jnp.sum(exists) * (target.size // exists.size)
    return jnp.stack([*(jnp.sum(jnp.where(exists, term, 0)) for term in terms), count])


def _distance(totals: dict, kind: str, sizes: tuple[int, ...]) -> float:
    distances = []
    for n_fft in sizes:
        error, energy, logarithm, count = totals[f"{kind} {n_fft}"]
        distances.append(np.sqrt(error / energy) + logarithm / count)
    return float(np.mean(distances))


def _coherence_sums(prediction: Array, target: Array, exists: Array, n_fft: int) -> dict:
    """Per channel: Σ_frames |Σ_bins w e^(jΔφ)| and Σ_frames Σ_bins w.

    The published measure is |Σ_f w e^(jΔφ)| / Σ_f w of each frame, averaged with the frame's Σ_f w as its
    weight, in which that weight cancels. The curve takes the sums over frames for each bin.
    """
    sums: dict[str, Any] = {}
    products = {"icpc": prediction * target.conj()}
    if prediction.shape[1] == 2:
        predicted, wanted = (x[:, :1] * x[:, 1:].conj() for x in (prediction, target))
        turn = jnp.where(power(wanted) > 0, wanted / magnitude(wanted, floor=1e-30), 1)
        products["ccpc"] = predicted * turn.conj()
    for kind, product in products.items():
        weights = jnp.sqrt(power(product))
        counted = exists & (weights > _WEIGHT_THRESHOLD)
        product, weights = jnp.where(counted, product, 0), jnp.where(counted, weights, 0)
        aligned = jnp.sqrt(power(jnp.sum(product, axis=-1)))
        sums[f"{kind} {n_fft}"] = jnp.stack(
            [jnp.sum(x, axis=(0, 2)) for x in (aligned, jnp.sum(weights, axis=-1))]
        )
        if n_fft == CURVE_SIZE:
            sums[f"{kind} curve"] = (jnp.sum(product, axis=(0, 2)), jnp.sum(weights, axis=(0, 2)))  # [C, F]
    return sums


def _coherence(totals: dict, kind: str) -> float | None:
    values = []
    for n_fft in COHERENCE_SIZES:
        aligned, weights = totals[f"{kind} {n_fft}"]
        sounding = weights > _LEAST_WEIGHT
        values.append(np.mean(aligned[sounding] / weights[sounding]) if sounding.any() else np.nan)
    return None if np.isnan(values).any() else float(np.mean(values))


def _curve(totals: dict, kind: str) -> Float[np.ndarray, " F"]:
    """|Σ_frames w e^(jΔφ)| / Σ_frames w of each bin, channels weighted by their energy."""
    product, weights = totals[f"{kind} curve"]
    aligned, weights = np.abs(product).sum(axis=0), weights.sum(axis=0)
    return np.divide(aligned, weights, out=np.full(weights.shape, np.nan), where=weights > _LEAST_WEIGHT)
