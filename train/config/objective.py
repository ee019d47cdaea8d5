"""The reconstruction objective's part of a recipe: weights and resolutions."""

import dataclasses
from typing import Literal

from earvae_jax.train.config.values import ConfigError, expect, expect_not_negative, expect_positive

# The sizes of the neighbouring Oobleck recipe (stable-audio-tools); εar-VAE's own are unpublished.
STFT_SIZES = (2048, 1024, 512, 256, 128, 64, 32)
_SMALLEST_FRAME = 4  # samples; a shorter Hann window is almost all zero
TERMS = (
    "spectral_convergence",
    "log_magnitude",
    "correlation",
    "instantaneous_frequency",
    "group_delay",
    "waveform",
    "log_waveform",
)


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
    k_weighting: bool = True  # filter both signals before every term but those of the waveform
    mid_side: bool = True  # magnitudes on mid and side besides left and right
    wrap: bool = True  # differences of phase modulo 2π; False is the published form
    weighting: Literal["magnitude"] | None = (
        "magnitude"  # how bins count in phase terms; None is the published form
    )
    spectral_convergence: float = 1.0  # weight
    log_magnitude: float = 1.0  # weight
    correlation: float = 100.0  # weight
    instantaneous_frequency: float = 100.0  # weight
    group_delay: float = 100.0  # weight
    waveform: float = 0.0  # weight
    log_waveform: float = 0.0  # weight

    def __post_init__(self):
        expect_positive(self, "hop_fraction")
        smallest = max(self.hop_fraction, _SMALLEST_FRAME)
        for name in ("n_ffts", "phase_n_ffts"):
            sizes = getattr(self, name)
            fit = bool(sizes) and min(sizes) >= smallest and len(set(sizes)) == len(sizes)
            expect(fit, name, sizes, f"a list of different sizes of at least {smallest} samples")
        expect(self.weighting in (None, "magnitude"), "weighting", self.weighting, '"magnitude" or null')
        expect_not_negative(self, *TERMS)
        if not self.active:
            raise ConfigError(", ".join(TERMS), "are all 0; expected a positive weight")

    @property
    def active(self) -> list[str]:
        """Names of the terms that have a weight."""
        return [name for name in TERMS if getattr(self, name)]

    @property
    def shortest_audio(self) -> int:
        """Samples that the largest frame needs."""
        return max(*self.n_ffts, *self.phase_n_ffts)
