"""How close a reconstruction is to its original: the published evaluation of εar-VAE, number for number."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from earvae_jax.signal.loudness import measure_loudness
from earvae_jax.signal.spectral_metrics import SpectralMetrics, measure_spectra

_EPSILON = 1e-8  # auraloss' own, for the same numbers

# The metrics of trained models, and how a table names them.
NAMES = {
    "si_sdr": "SI-SDR dB",
    "icpc": "ICPC",
    "ccpc": "CCPC",
    "stft_distance": "STFT",
    "mel_distance": "mel",
}


@dataclasses.dataclass(frozen=True)
class PairMetrics:
    """Everything measured on one pair: the named values, and coherence over frequency for plots."""

    values: dict[str, float | None]
    spectra: SpectralMetrics


def evaluate_pair(
    original: Float[np.ndarray, "T C"], reconstruction: Float[np.ndarray, "T C"], sample_rate: int
) -> dict[str, float | None]:
    """Measures a reconstruction against its original; None where a metric is undefined.

    Keys: `si_sdr` (dB), `stft_distance`, `mel_distance` (auraloss, A-weighted), `icpc`, `ccpc` (phase
    coherence within and across channels, 0 … 1), the reconstruction's `lufs`, `lra` (LU) and `true_peak`
    (dBTP), the original's `original_lufs`, `original_lra`, `original_true_peak`, and their differences,
    reconstruction minus original: `lufs_difference`, `lra_difference`, `true_peak_difference`.

    The published numbers are for 44.1 kHz; other rates are measured as they are. These are undefined: SI-SDR
    and coherence if one side is silent, distances from silence, spectral metrics below 2049 samples,
    loudness below 0.4 s, loudness range below 3 s, `ccpc` of mono, and values that overflow. Means over
    channels leave silent channels out.

    Raises:
        ValueError: shapes differ, no samples, more than two channels, or samples that are not finite.
    """
    return measure_pair(original, reconstruction, sample_rate).values


def measure_pair(
    original: Float[np.ndarray, "T C"], reconstruction: Float[np.ndarray, "T C"], sample_rate: int
) -> PairMetrics:
    """Like `evaluate_pair`, and also returns the curves."""
    original, reconstruction = np.asarray(original), np.asarray(reconstruction)
    if original.shape != reconstruction.shape:
        raise ValueError(
            f"original {original.shape} and reconstruction {reconstruction.shape} differ in shape"
        )
    if original.ndim != 2 or not len(original) or original.shape[1] not in (1, 2):
        raise ValueError(f"audio must be [samples, 1 or 2 channels], not {original.shape}")
    if not (np.isfinite(original).all() and np.isfinite(reconstruction).all()):
        raise ValueError("audio holds samples that are NaN or infinite")
    spectra = measure_spectra(original, reconstruction, sample_rate)
    values = {
        "si_sdr": si_sdr(original, reconstruction),
        "stft_distance": spectra.stft_distance,
        "mel_distance": spectra.mel_distance,
        "icpc": spectra.icpc,
        "ccpc": spectra.ccpc,
    }
    after, before = (measure_loudness(x, sample_rate) for x in (reconstruction, original))
    for name, field in (("lufs", "integrated"), ("lra", "range"), ("true_peak", "true_peak")):
        new, old = getattr(after, field), getattr(before, field)
        values[name], values[f"original_{name}"] = new, old
        values[f"{name}_difference"] = None if new is None or old is None else new - old
    # Samples far above full scale overflow some metrics: infinity and NaN say as little as "undefined".
    finite = {
        name: value if value is not None and math.isfinite(value) else None for name, value in values.items()
    }
    return PairMetrics(finite, spectra)


def si_sdr(original: Float[np.ndarray, "T C"], reconstruction: Float[np.ndarray, "T C"]) -> float | None:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2018), the mean over channels.

    Means are removed, as in auraloss. A channel in which one side is constant has no ratio; None if none has.
    It is computed on the host in float64, in two passes over the samples: any length is exact.
    """
    ratios = []
    for target, estimate in zip(
        original.T.astype(np.float64), reconstruction.T.astype(np.float64), strict=True
    ):
        target, estimate = target - target.mean(), estimate - estimate.mean()
        energy = target @ target
        if min(energy, estimate @ estimate) < 1e-20 * len(target):
            continue
        projection = (estimate @ target) / (energy + _EPSILON) * target
        residual = estimate - projection
        ratios.append(10 * np.log10(projection @ projection / (residual @ residual + _EPSILON) + _EPSILON))
    return float(np.mean(ratios)) if ratios else None
