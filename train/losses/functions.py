"""Losses that audio autoencoders are trained with, as pure functions of audio `[B, T, C]`.

Every function has reverse-mode gradients, works under `jit` and `vmap`, and computes in float32 whatever the
input. Values and gradients are finite for silence and for identical inputs. The phase losses are those of
εar-VAE (arXiv 2509.14912); `objective.py` combines them.
"""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from earvae_jax.model.bottleneck import Posterior
from earvae_jax.signal.spectral import stft
from earvae_jax.train.config.objective import STFT_SIZES
from earvae_jax.train.losses import spectrum_terms
from earvae_jax.train.losses.spectrum_terms import Weighting

_LOWEST_LEVEL = 1e-3  # −60 dB: near silence is not amplified
_LEAST_ERROR = 1e-3  # of `log_waveform_loss`, relative to the target's energy


def waveform_loss(prediction: Float[Array, "B T C"], target: Float[Array, "B T C"]) -> Float[Array, ""]:
    """Energy of the difference relative to the target's: ‖prediction − target‖² / ‖target‖², mean over items.

    This is the reciprocal of the signal-to-distortion ratio. Targets quieter than −60 dB count as −60 dB.
    """
    return jnp.mean(_relative_error(prediction, target))


def log_waveform_loss(prediction: Float[Array, "B T C"], target: Float[Array, "B T C"]) -> Float[Array, ""]:
    """Mean over items of ln(r + 1e-3), where r is an item's `waveform_loss`.

    This is the negative signal-to-distortion ratio but for a factor, 10/ln 10. Each item counts alike, while
    `waveform_loss` is ruled by those that are reconstructed worst. Above 30 dB there is nothing left to gain.
    """
    return jnp.mean(jnp.log(_relative_error(prediction, target) + _LEAST_ERROR))


def multi_resolution_stft_loss(
    prediction: Float[Array, "B T C"],
    target: Float[Array, "B T C"],
    *,
    n_ffts: Sequence[int] = STFT_SIZES,
    hop_fraction: int = 4,
    center: bool = True,
    mid_side: bool = True,
    spectral_convergence: bool = True,
    log_magnitude: bool = True,
) -> Float[Array, ""]:
    """Distance of magnitude spectra on mid, side, left and right (MSLR), averaged over resolutions.

    Spectral convergence is `‖|Y| − |X|‖ / ‖Y‖` for each item and signal; log magnitude is
    `mean |ln|X| − ln|Y||`; magnitudes are floored at 1e-4. A nearly silent signal, such as the side of a mono
    recording, is measured against 1 % of the item's loudest signal.

    Args:
        n_ffts: one resolution each; the window has the same length, the hop is `n_fft // hop_fraction`.
        center: reflect the ends, as `torch.stft` does by default.
        mid_side: compare mid and side besides left and right (mono audio has neither).
        spectral_convergence, log_magnitude: which of the two terms to include.

    Raises:
        ValueError: shapes differ, both terms are off, or the audio is shorter than the largest frame.
    """
    _check_shapes(prediction, target)
    if not (spectral_convergence or log_magnitude):
        raise ValueError("both terms of the multi-resolution STFT loss are switched off")
    total = jnp.zeros(())
    for n_fft in n_ffts:
        spectra = _spectra(prediction, target, n_fft, n_fft // hop_fraction, center)
        convergence, log_distance = spectrum_terms.magnitude_distances(*spectra, mid_side=mid_side)
        total += spectral_convergence * convergence + log_magnitude * log_distance
    return total / len(n_ffts)


def correlation_loss(
    prediction: Float[Array, "B T C"],
    target: Float[Array, "B T C"],
    *,
    n_fft: int,
    hop_length: int,
    weighting: Weighting = "magnitude",
) -> Float[Array, ""]:
    """One minus the cosine of the phase difference between prediction and target, on left and right each.

    `weighting=None` is the form published after the paper: `1 − mean Re(P·conj(T) / (|P||T| + 1e-8))` over
    all bins, STFT not centred. (The first arXiv version lacks the conjugate; its authors call that an error.)
    `"magnitude"` weights each bin by min(|P|, |T|), scaled and bounded as in `group_delay_loss`.
    """
    spectra = _phase_spectra(prediction, target, n_fft, hop_length, weighting)
    return spectrum_terms.correlation(*spectra, hop_length=hop_length, weighting=weighting)


def instantaneous_frequency_loss(
    prediction: Float[Array, "B T C"],
    target: Float[Array, "B T C"],
    *,
    n_fft: int,
    hop_length: int,
    wrap: bool = True,
    weighting: Weighting = "magnitude",
) -> Float[Array, ""]:
    """Mean absolute difference of the change of phase from frame to frame, in radians per hop.

    `wrap=False, weighting=None` is the published form; for the defaults see `group_delay_loss`. Audio of a
    single frame has no change and gives 0.
    """
    predicted, wanted = _phase_spectra(prediction, target, n_fft, hop_length, weighting)
    return spectrum_terms.phase_change(
        predicted, wanted, "frames", hop_length=hop_length, wrap=wrap, weighting=weighting
    )


def group_delay_loss(
    prediction: Float[Array, "B T C"],
    target: Float[Array, "B T C"],
    *,
    n_fft: int,
    hop_length: int,
    wrap: bool = True,
    weighting: Weighting = "magnitude",
) -> Float[Array, ""]:
    """Mean absolute difference of the change of phase from bin to bin, in radians per bin.

    The published form is `wrap=False, weighting=None`: STFT not centred, phases of left and right, their
    differences along frequency not wrapped, all bins weighted alike. It has two faults that the defaults
    mend. First, differences of angles in [−π, π) jump by 2π although the phase does not; `wrap=True` takes
    them modulo 2π. Second, silent bins, which are most of a music spectrum, have phases of pure noise and
    gradients of 1 / |P|: on real reconstructions the value stays near that of random phase and gradients
    reach 10³ per sample.

    `weighting="magnitude"` counts each difference d of two bins by w = m · m / (m + m₀) (constant in the
    gradient). Here m is the smallest of the four magnitudes that take part, and m₀ is that of a sine at
    −100 dBFS, below which phase is rounding noise. The result is about the phase's share of the spectral
    error in amplitude, and **one sample's gradient is never larger than that of a mean absolute error**:

        L = Σ w|d| / (2 · S · F · N),   S = max_t Σ_k window[t − k·hop],   N = all samples in the frames,
        |∂L/∂x| ≤ 1 / N   for every sample of every input.

    Proof. P = Σ_t window[t − k·hop] x[t] e^(−iωt), so |∂ arg P / ∂x[t]| ≤ window[t − k·hop] / |P|. A bin
    takes part in at most two differences, each of weight w ≤ m ≤ |P|, so it adds at most
    2·window[t − k·hop] to |∂ Σ w|d| / ∂x[t]|. Summed over the F bins of the frames that cover t, this is at
    most 2·F·S. ∎ (`correlation_loss` has half of it: a bin takes part once, and |d(1 − cos)/dφ| ≤ 1.)

    Values are small, about 1e-5 on music: they are radians times the fraction of the largest magnitude that
    a signal within ±1 can have.

    Raises:
        ValueError: shapes differ, the weighting is unknown, or the audio is shorter than one frame.
    """
    predicted, wanted = _phase_spectra(prediction, target, n_fft, hop_length, weighting)
    return spectrum_terms.phase_change(
        predicted, wanted, "bins", hop_length=hop_length, wrap=wrap, weighting=weighting
    )


def kl_loss(mean: Float[Array, "B N D"], scale: Float[Array, "B N D"]) -> Float[Array, ""]:
    """The KL term of the published bottleneck, from the encoder's mean and scale; see `Posterior.kl`."""
    return Posterior(mean, scale).kl()


def hinge_discriminator_loss(
    real: Sequence[Float[Array, "..."]], fake: Sequence[Float[Array, "..."]]
) -> Float[Array, ""]:
    """`mean max(0, 1 − real) + mean max(0, 1 + fake)`, averaged over the discriminators' outputs."""
    return _mean(
        jnp.mean(jax.nn.relu(1 - _float32(r))) + jnp.mean(jax.nn.relu(1 + _float32(f)))
        for r, f in zip(real, fake, strict=True)
    )


def hinge_generator_loss(fake: Sequence[Float[Array, "..."]]) -> Float[Array, ""]:
    """`−mean fake`, averaged over the discriminators' outputs."""
    return _mean(-jnp.mean(_float32(f)) for f in fake)


def least_squares_discriminator_loss(
    real: Sequence[Float[Array, "..."]], fake: Sequence[Float[Array, "..."]]
) -> Float[Array, ""]:
    """`mean (1 − real)² + mean fake²` (Mao et al. 2017), averaged over the discriminators' outputs."""
    return _mean(
        jnp.mean(jnp.square(1 - _float32(r))) + jnp.mean(jnp.square(_float32(f)))
        for r, f in zip(real, fake, strict=True)
    )


def least_squares_generator_loss(fake: Sequence[Float[Array, "..."]]) -> Float[Array, ""]:
    """`mean (1 − fake)²`, averaged over the discriminators' outputs."""
    return _mean(jnp.mean(jnp.square(1 - _float32(f))) for f in fake)


def feature_matching_loss(
    real: Sequence[Sequence[Float[Array, "..."]]], fake: Sequence[Sequence[Float[Array, "..."]]]
) -> Float[Array, ""]:
    """`mean |real − fake|` of each feature map, averaged over layers, then over discriminators.

    `real[i][j]` is layer j of discriminator i; no gradient flows to it.
    """
    return _mean(
        _mean(
            jnp.mean(jnp.abs(jax.lax.stop_gradient(_float32(r)) - _float32(f)))
            for r, f in zip(real_maps, fake_maps, strict=True)
        )
        for real_maps, fake_maps in zip(real, fake, strict=True)
    )


def _float32(values: Float[Array, "..."]) -> Float[Array, "..."]:
    return values.astype(jnp.float32)


def _mean(values: Iterable[Array]) -> Float[Array, ""]:
    return jnp.mean(jnp.stack(list(values)))


def _relative_error(prediction: Float[Array, "B T C"], target: Float[Array, "B T C"]) -> Float[Array, " B"]:
    """Energy of the difference relative to the target's, for each item."""
    _check_shapes(prediction, target)
    prediction, target = prediction.astype(jnp.float32), target.astype(jnp.float32)
    error = jnp.mean(jnp.square(prediction - target), axis=(1, 2))
    return error / jnp.maximum(jnp.mean(jnp.square(target), axis=(1, 2)), _LOWEST_LEVEL**2)


def _check_shapes(prediction: Array, target: Array) -> None:
    if prediction.shape != target.shape or prediction.ndim != 3:
        raise ValueError(
            f"prediction {prediction.shape} and target {target.shape} must both be [batch, samples, channels]"
        )


def _phase_spectra(prediction, target, n_fft, hop_length, weighting):
    _check_shapes(prediction, target)
    if weighting not in (None, "magnitude"):
        raise ValueError(f"weighting is None or 'magnitude', not {weighting!r}")
    return _spectra(prediction, target, n_fft, hop_length, center=False)


def _spectra(
    prediction: Array, target: Array, n_fft: int, hop_length: int, center: bool
) -> tuple[Complex[Array, "B C K F"], Complex[Array, "B C K F"]]:
    first, second = (stft(x, n_fft=n_fft, hop_length=hop_length, center=center) for x in (prediction, target))
    return first, second
