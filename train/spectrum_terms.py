"""The spectral losses as functions of two spectra, so that an objective computes each STFT once for all terms.

Spectra are `[B, C, K, F]` as `earvae_jax.spectral.stft` gives them. `losses.py` holds the same losses as
functions of audio.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from earvae_jax import spectral

Weighting = Literal["magnitude"] | None

# A target whose channel holds next to nothing (the side of a mono recording) is measured against 1 % of the
# item's loudest signal; its own norm would turn rounding into a loss of thousands.
_CONVERGENCE_FLOOR = 0.01
# Keeps 1 / |X| finite at zero bins; far below any spectrum of 24-bit audio.
_MAGNITUDE_FLOOR = 1e-30
# What the published correlation adds to |P||T|.
_CORRELATION_EPSILON = 1e-8


def correlation(
    prediction: Complex[Array, "B C K F"],
    target: Complex[Array, "B C K F"],
    *,
    hop_length: int,
    weighting: Weighting,
) -> Float[Array, ""]:
    """`1 − cos` of the phase difference; see `losses.correlation_loss`."""
    product = prediction.real * target.real + prediction.imag * target.imag
    predicted, wanted = (spectral.magnitude(x, floor=_MAGNITUDE_FLOOR) for x in (prediction, target))
    if weighting is None:
        return 1 - jnp.mean(product / (predicted * wanted + _CORRELATION_EPSILON))
    weights = jax.lax.stop_gradient(jnp.minimum(predicted, wanted))
    # Two divisions: the product of two small magnitudes can underflow.
    return _weighted_mean(1 - product / predicted / wanted, weights, prediction, hop_length)


def instantaneous_frequency(
    prediction: Complex[Array, "B C K F"],
    target: Complex[Array, "B C K F"],
    *,
    hop_length: int,
    wrap: bool,
    weighting: Weighting,
) -> Float[Array, ""]:
    """Difference of the phases' change from frame to frame; see `losses.instantaneous_frequency_loss`."""
    return _phase_change(prediction, target, -2, hop_length, wrap, weighting)


def group_delay(
    prediction: Complex[Array, "B C K F"],
    target: Complex[Array, "B C K F"],
    *,
    hop_length: int,
    wrap: bool,
    weighting: Weighting,
) -> Float[Array, ""]:
    """Difference of the phases' change from bin to bin; see `losses.group_delay_loss`."""
    return _phase_change(prediction, target, -1, hop_length, wrap, weighting)


def _phase_change(prediction, target, axis, hop_length, wrap, weighting) -> Float[Array, ""]:
    if prediction.shape[axis] < 2:
        return jnp.zeros(())  # one frame: nothing changes
    if wrap:
        # The phase of P · conj(T) is the difference of the phases up to whole turns, which wrapping removes.
        change = spectral.wrap_phase(jnp.diff(spectral.phase(prediction * target.conj()), axis=axis))
    else:
        change = jnp.diff(spectral.phase(prediction), axis=axis) - jnp.diff(spectral.phase(target), axis=axis)
    if weighting is None:
        return jnp.mean(jnp.abs(change))
    smaller = jnp.sqrt(jnp.minimum(spectral.power(prediction), spectral.power(target)))
    count = smaller.shape[axis]
    weights = jnp.minimum(
        jax.lax.slice_in_dim(smaller, 1, count, axis=axis),
        jax.lax.slice_in_dim(smaller, 0, count - 1, axis=axis),
    )
    return _weighted_mean(jnp.abs(change), jax.lax.stop_gradient(weights), prediction, hop_length)


def _weighted_mean(values, weights, spectrum, hop_length) -> Float[Array, ""]:
    """Σ weights · values, scaled so that one sample's gradient is at most that of a mean absolute error.

    The scale is 1 / (2 · hop · the windows' largest sum) per weight and hop / samples / F per term; the
    proof stands in `losses.group_delay_loss`.
    """
    *items, frames, bins = spectrum.shape
    n_fft = 2 * (bins - 1)
    samples = (frames - 1) * hop_length + n_fft
    scale = 1 / (2 * window_overlap(n_fft, hop_length) * samples * bins * math.prod(items))
    return jnp.sum(weights * values) * scale


def window_overlap(n_fft: int, hop_length: int) -> float:
    """Largest sum of the Hann windows that cover one sample: `n_fft / (2 · hop)` where the hop divides half."""
    window = spectral.hann_window(n_fft).astype(np.float64)
    folded = np.pad(window, (0, -n_fft % hop_length)).reshape(-1, hop_length).sum(axis=0)
    return float(folded.max())


def magnitude_distances(
    prediction: Complex[Array, "B C K F"], target: Complex[Array, "B C K F"], *, mid_side: bool
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Spectral convergence and log-magnitude distance; see `losses.multi_resolution_stft_loss`.

    Mid and side are formed from the spectra: the STFT is linear, and this halves the transforms.
    """
    predicted, wanted = (spectral.magnitude(_mslr(x, mid_side)) for x in (prediction, target))
    log_distance = jnp.mean(jnp.abs(jnp.log(predicted) - jnp.log(wanted)))
    error = _norm(predicted - wanted)  # [B, S]
    norm = _norm(wanted)
    norm = jnp.maximum(norm, _CONVERGENCE_FLOOR * jnp.max(norm, axis=1, keepdims=True))
    return jnp.mean(error / norm), log_distance


def _mslr(spectrum, mid_side: bool):
    if not mid_side or spectrum.shape[1] == 1:
        return spectrum
    left, right = spectrum[:, :1], spectrum[:, 1:]
    return jnp.concatenate([(left + right) / 2, (left - right) / 2, spectrum], axis=1)


def _norm(values: Float[Array, "B S K F"]) -> Float[Array, "B S"]:
    """Euclidean norm of each signal's bins, with the gradient 0 at 0."""
    squared = jnp.sum(jnp.square(values), axis=(-2, -1))
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
