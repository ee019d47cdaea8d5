"""The reconstruction objective: every loss on audio that a training step adds up, with shared transforms."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from earvae_jax.signal.spectral import stft
from earvae_jax.signal.weighting import k_weight
from earvae_jax.train.config_values import ConfigError, expect, expect_not_negative, expect_positive
from earvae_jax.train.losses import spectrum_terms
from earvae_jax.train.losses.functions import STFT_SIZES, waveform_loss
from earvae_jax.train.losses.spectrum_terms import Weighting

# Items quieter than −60 dB count as this loud, so that near silence is not blown up.
_LOWEST_LEVEL = 1e-3
_SMALLEST_FRAME = 4  # samples; a Hann window of fewer is next to nothing
_MAGNITUDE_TERMS = ("spectral_convergence", "log_magnitude")
_PHASE_TERMS = ("correlation", "instantaneous_frequency", "group_delay")
_TERMS = (*_MAGNITUDE_TERMS, *_PHASE_TERMS, "waveform")


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """Weights and resolutions of the reconstruction objective; a weight of 0 leaves its term out.

    εar-VAE (arXiv 2509.14912) publishes the terms, not their weights or sizes. Sizes and the magnitude
    weights are those of the neighbouring recipe (stable-audio-tools); the phase weights bring each phase
    term's gradient to the size of spectral convergence's.
    """

    n_ffts: tuple[int, ...] = STFT_SIZES  # resolutions of the magnitude terms
    phase_n_ffts: tuple[int, ...] = (2048, 1024, 512, 256)  # resolutions of the phase terms
    hop_fraction: int = 4  # hop = n_fft / hop_fraction
    k_weighting: bool = True  # filter both signals before every term but the waveform's
    mid_side: bool = True  # magnitudes on mid and side besides left and right
    wrap: bool = True  # differences of phase modulo 2π; False is the published form
    weighting: Weighting = "magnitude"  # how bins count in phase terms; None is the published form
    spectral_convergence: float = 1.0  # weight
    log_magnitude: float = 1.0  # weight
    correlation: float = 100.0  # weight
    instantaneous_frequency: float = 100.0  # weight
    group_delay: float = 100.0  # weight
    waveform: float = 0.0  # weight

    def __post_init__(self):
        expect_positive(self, "hop_fraction")
        smallest = max(self.hop_fraction, _SMALLEST_FRAME)
        for name in ("n_ffts", "phase_n_ffts"):
            sizes = getattr(self, name)
            fit = bool(sizes) and min(sizes) >= smallest and len(set(sizes)) == len(sizes)
            expect(fit, name, sizes, f"a list of different sizes of at least {smallest} samples")
        expect(self.weighting in (None, "magnitude"), "weighting", self.weighting, '"magnitude" or null')
        expect_not_negative(self, *_TERMS)
        if not _active(self):
            raise ConfigError(", ".join(_TERMS), "are all 0; expected a positive weight")

    @property
    def shortest_audio(self) -> int:
        """Samples that the largest frame needs."""
        return max(*self.n_ffts, *self.phase_n_ffts)


def reconstruction_objective(
    prediction: Float[Array, "B T C"],
    target: Float[Array, "B T C"],
    *,
    sample_rate: int,
    config: ObjectiveConfig,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The weighted sum of all audio losses, and each loss before its weight by name.

    Magnitudes on mid, side, left and right, phase on left and right only, all K-weighted. STFTs are not
    centred: reflected ends are no music. Each is computed once for all terms of its size. Phase terms with
    magnitude weighting are divided by each item's level (the target's RMS after K-weighting), so that quiet
    crops learn phase as loud ones do; the other terms are relative already.
    """
    terms = dict.fromkeys(_active(config), jnp.zeros(()))
    if config.waveform:
        terms["waveform"] = waveform_loss(prediction, target)
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


def _active(config: ObjectiveConfig) -> list[str]:
    return [name for name in _TERMS if getattr(config, name)]


def _terms_of_size(prediction, target, n_fft, hop, level, config):
    active = _active(config)
    if n_fft in config.n_ffts and set(active) & set(_MAGNITUDE_TERMS):
        distances = spectrum_terms.magnitude_distances(prediction, target, mid_side=config.mid_side)
        yield from ((name, v) for name, v in zip(_MAGNITUDE_TERMS, distances, strict=True) if name in active)
    if n_fft not in config.phase_n_ffts:
        return
    options = {"hop_length": hop, "weighting": config.weighting, "level": level}
    if "correlation" in active:
        yield "correlation", spectrum_terms.correlation(prediction, target, **options)
    if "instantaneous_frequency" in active:
        value = spectrum_terms.instantaneous_frequency(prediction, target, wrap=config.wrap, **options)
        yield "instantaneous_frequency", value
    if "group_delay" in active:
        yield "group_delay", spectrum_terms.group_delay(prediction, target, wrap=config.wrap, **options)
