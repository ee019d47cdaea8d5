"""The spectral losses as functions of two spectra, so that one STFT serves all terms of an objective.

Spectra are `[B, C, K, F]` as `earvae_jax.signal.spectral.stft` gives them. `functions.py` holds the same
losses as functions of audio.
"""

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float

from earvae_jax.signal import spectral
from earvae_jax.train.formulations.choice import gradient_stored, sums_of_planes

Weighting = Literal["magnitude"] | None

# A nearly silent signal of the target (the side of a mono recording) is measured against 1 % of the item's
# loudest signal; its own norm would turn rounding into a loss of thousands.
_CONVERGENCE_FLOOR = 0.01
# Magnitudes are floored at 1e-4, as in auraloss.
_POWER_FLOOR = 1e-8
# Keeps 1 / |X| finite at zero bins; far below any spectrum of 24-bit audio.
_MAGNITUDE_FLOOR = 1e-30
# What the published correlation adds to |P||T|.
_CORRELATION_EPSILON = 1e-8
# Amplitude of a sine at −100 dBFS; in bins below it phase is rounding noise, and weights fade out.
_SILENT_AMPLITUDE = 1e-5


def correlation(
    prediction: Complex[Array, "B C K F"],
    target: Complex[Array, "B C K F"],
    *,
    hop_length: int,
    weighting: Weighting,
    level: Float[Array, " B"] | float = 1.0,
) -> Float[Array, ""]:
    """`1 − cos` of the phase difference; see `losses.correlation_loss`.

    `level` divides each item's weights (here and below), so that the loss is relative to that level.
    """
    product = prediction.real * target.real + prediction.imag * target.imag
    predicted, wanted = (spectral.magnitude(x, floor=_MAGNITUDE_FLOOR) for x in (prediction, target))
    if weighting is None:
        return 1 - jnp.mean(product / (predicted * wanted + _CORRELATION_EPSILON))
    # Two divisions: the product of two small magnitudes can underflow.
    values = 1 - product / predicted / wanted
    return _weighted_mean(values, jnp.minimum(predicted, wanted), prediction, hop_length, level)


def phase_change(
    prediction: Complex[Array, "B C K F"],
    target: Complex[Array, "B C K F"],
    axis: Literal["frames", "bins"],
    *,
    hop_length: int,
    wrap: bool,
    weighting: Weighting,
    level: Float[Array, " B"] | float = 1.0,
) -> Float[Array, ""]:
    """Difference of the phases' change between neighbouring frames or bins.

    Frames: instantaneous frequency; bins: group delay. See
    `losses.instantaneous_frequency_loss` and `losses.group_delay_loss`.
    """
    along = {"frames": -2, "bins": -1}[axis]
    if prediction.shape[along] < 2:
        return jnp.zeros(())  # one frame: nothing changes
    if wrap:
        # The phase of P · conj(T) is the difference of the phases up to whole turns, which wrapping removes.
        change = spectral.wrap_phase(_difference(spectral.phase(prediction * target.conj()), along))
    else:
        change = _difference(spectral.phase(prediction), along) - _difference(spectral.phase(target), along)
    if weighting is None:
        return jnp.mean(jnp.abs(change))
    smaller = jnp.sqrt(jnp.minimum(spectral.power(prediction), spectral.power(target)))
    count = smaller.shape[along]
    later, earlier = (lax.slice_in_dim(smaller, i, i + count - 1, axis=along) for i in (1, 0))
    return _weighted_mean(jnp.abs(change), jnp.minimum(later, earlier), prediction, hop_length, level)


def _difference(phase: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """The change from each frame or bin to the next; both gradients are stored, as two slices read them."""
    return gradient_stored(jnp.diff(gradient_stored(phase), axis=axis))


def _weighted_mean(
    values: Array, magnitudes: Array, spectrum: Array, hop_length: int, level: Array | float
) -> Float[Array, ""]:
    """Σ weights · values, scaled so that one sample's gradient is at most that of a mean absolute error.

    The proof stands in `losses.group_delay_loss`.
    """
    *items, frames, bins = spectrum.shape
    n_fft = 2 * (bins - 1)
    silent = _SILENT_AMPLITUDE * n_fft / 4  # a sine of amplitude a has a bin of a · n_fft / 4
    weights = lax.stop_gradient(magnitudes * (magnitudes / (magnitudes + silent)))
    per_item = jnp.sum(weights * values, axis=(1, 2, 3)) / level
    samples = math.prod(items) * ((frames - 1) * hop_length + n_fft)
    return jnp.sum(per_item) / (2 * window_overlap(n_fft, hop_length) * bins * samples)


def window_overlap(n_fft: int, hop_length: int) -> float:
    """Largest sum of the Hann windows over one sample: `n_fft / (2 · hop)` if the hop divides n_fft / 2."""
    window = spectral.hann_window(n_fft).astype(np.float64)
    folded = np.pad(window, (0, -n_fft % hop_length)).reshape(-1, hop_length).sum(axis=0)
    return float(folded.max())


def magnitude_distances(
    prediction: Complex[Array, "B C K F"], target: Complex[Array, "B C K F"], *, mid_side: bool
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Spectral convergence and log-magnitude distance; see `losses.multi_resolution_stft_loss`.

    Mid and side are formed from the spectra: the STFT is linear, and this halves the transforms. Signals are
    compared one at a time, with one logarithm of the ratio, so that no array of all signals is written.
    """
    summed = []
    for predicted, wanted in zip(_signals(prediction, mid_side), _signals(target, mid_side), strict=True):
        predicted, wanted = (jnp.maximum(spectral.power(x), _POWER_FLOOR) for x in (predicted, wanted))
        error = jnp.square(jnp.sqrt(predicted) - jnp.sqrt(wanted))
        summed += [jnp.abs(jnp.log(predicted / wanted)), error, wanted]
    sums = sums_of_planes(*summed)
    logs, errors, energies = (jnp.stack(sums[i::3], axis=1) for i in range(3))  # [B, S]
    error, norm = _root(errors), jnp.sqrt(energies)
    norm = jnp.maximum(norm, _CONVERGENCE_FLOOR * jnp.max(norm, axis=1, keepdims=True))
    return jnp.mean(error / norm), jnp.mean(logs) / (2 * math.prod(prediction.shape[-2:]))


def _signals(spectrum: Array, mid_side: bool) -> list[Complex[Array, "B K F"]]:
    # Split, not indexed, so that the gradient of all channels is one concatenation.
    channels = lax.split(spectrum, [1] * spectrum.shape[1], axis=1)
    channels = [gradient_stored(channel[:, 0]) for channel in channels]
    if not mid_side or len(channels) == 1:
        return channels
    left, right = channels
    return [(left + right) / 2, (left - right) / 2, left, right]


def _root(squared: Float[Array, "B S"]) -> Float[Array, "B S"]:
    """Square roots, whose gradient at 0 is 0."""
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
