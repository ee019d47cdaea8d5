"""The reconstruction objective: the sum of all losses on audio in a training step, with shared transforms."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from earvae_jax.signal.spectral import stft
from earvae_jax.signal.weighting import k_weight
from earvae_jax.train.config import ObjectiveConfig
from earvae_jax.train.losses import spectrum_terms
from earvae_jax.train.losses.functions import log_waveform_loss, waveform_loss

# Items quieter than −60 dB count as −60 dB, so that near silence is not amplified.
_LOWEST_LEVEL = 1e-3
_MAGNITUDE_TERMS = ("spectral_convergence", "log_magnitude")


def reconstruction_objective(
    prediction: Float[Array, "B T C"],
    target: Float[Array, "B T C"],
    *,
    sample_rate: int,
    config: ObjectiveConfig,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The weighted sum of all audio losses, and each loss before its weight by name.

    Magnitude terms compare mid, side, left and right, phase terms left and right only; all are K-weighted.
    STFTs are not centred, as reflected ends are not music. Each is computed once for all terms of its size.
    Phase terms with magnitude weighting are divided by each item's level (the target's RMS after
    K-weighting), so that quiet crops train phase as much as loud ones; other terms are relative already.
    """
    terms = dict.fromkeys(config.active, jnp.zeros(()))
    if config.waveform:
        terms["waveform"] = waveform_loss(prediction, target)
    if config.log_waveform:
        terms["log_waveform"] = log_waveform_loss(prediction, target)
    if config.k_weighting:
        prediction, target = k_weight(prediction, sample_rate), k_weight(target, sample_rate)
    level = jnp.sqrt(jnp.mean(jnp.square(target.astype(jnp.float32)), axis=(1, 2)))
    level = jax.lax.stop_gradient(jnp.maximum(level, _LOWEST_LEVEL))
    for n_fft in sorted({*config.n_ffts, *config.phase_n_ffts}, reverse=True):
        hop = n_fft // config.hop_fraction
        predicted, wanted = (stft(x, n_fft=n_fft, hop_length=hop, center=False) for x in (prediction, target))
        for name, value in _terms_of_size(predicted, wanted, n_fft, hop, level, config):
            sizes = config.n_ffts if name in _MAGNITUDE_TERMS else config.phase_n_ffts
            terms[name] += value / len(sizes)
    return sum(getattr(config, name) * value for name, value in terms.items()), terms


def _terms_of_size(prediction, target, n_fft, hop, level, config):
    active = config.active
    if n_fft in config.n_ffts and set(active) & set(_MAGNITUDE_TERMS):
        distances = spectrum_terms.magnitude_distances(prediction, target, mid_side=config.mid_side)
        yield from ((name, v) for name, v in zip(_MAGNITUDE_TERMS, distances, strict=True) if name in active)
    if n_fft not in config.phase_n_ffts:
        return
    options = {"hop_length": hop, "weighting": config.weighting, "level": level}
    if "correlation" in active:
        yield "correlation", spectrum_terms.correlation(prediction, target, **options)
    if "instantaneous_frequency" in active:
        value = spectrum_terms.phase_change(prediction, target, "frames", wrap=config.wrap, **options)
        yield "instantaneous_frequency", value
    if "group_delay" in active:
        value = spectrum_terms.phase_change(prediction, target, "bins", wrap=config.wrap, **options)
        yield "group_delay", value
