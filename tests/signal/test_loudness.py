"""Loudness against the standards' own test signals, another implementation, and dense resampling."""

import numpy as np
import pyloudnorm
import pytest
import scipy.signal
from tolerances import LOUDNESS_LU, LOUDNESS_RANGE_LU, TRUE_PEAK_DB

from earvae_jax.signal.loudness import measure_loudness

RATE = 48_000


def tone(seconds: float, decibels: float, rate: int = RATE, hz: float = 1000) -> np.ndarray:
    """A stereo sine; EBU Tech 3341 gives levels as the peak of the sine."""
    time = np.arange(round(seconds * rate)) / rate
    return np.repeat(10 ** (decibels / 20) * np.sin(2 * np.pi * hz * time)[:, None], 2, axis=1)


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize("decibels", [-23, -33])
def test_stereo_tones_read_their_level(rate, decibels):
    """EBU Tech 3341, cases 1 and 2: a 1 kHz tone of −23 dBFS in both channels is −23.0 LUFS."""
    loudness = measure_loudness(tone(5, decibels, rate), rate)
    assert loudness.integrated == pytest.approx(decibels, abs=LOUDNESS_LU)
    assert loudness.range == pytest.approx(0, abs=LOUDNESS_RANGE_LU)
    assert loudness.true_peak == pytest.approx(decibels, abs=TRUE_PEAK_DB)


def test_both_gates():
    """EBU Tech 3341, case 4, shortened: −72, −36, −23, −36 and −72 dBFS in turn is −23.0 LUFS."""
    levels = [(2, -72), (5, -36), (15, -23), (5, -36), (2, -72)]
    audio = np.concatenate([tone(*level) for level in levels])
    assert measure_loudness(audio, RATE).integrated == pytest.approx(-23, abs=LOUDNESS_LU)


@pytest.mark.parametrize(("levels", "expected"), [((-20, -30), 10), ((-20, -15), 5), ((-40, -20), 20)])
def test_loudness_range_of_two_levels(levels, expected):
    """EBU Tech 3342, cases 1 to 3: 20 s each of two levels."""
    audio = np.concatenate([tone(20, level) for level in levels])
    assert measure_loudness(audio, RATE).range == pytest.approx(expected, abs=LOUDNESS_RANGE_LU)


@pytest.mark.parametrize("samples", [3 * RATE, 100_800])
@pytest.mark.parametrize("channels", [1, 2])
def test_integrated_loudness_is_pyloudnorms(samples, channels):
    random = np.random.default_rng(0)
    swell = np.linspace(0.01, 0.3, samples)[:, None]
    audio = swell * random.standard_normal((samples, channels))
    expected = pyloudnorm.Meter(RATE).integrated_loudness(audio)
    assert measure_loudness(audio, RATE).integrated == pytest.approx(expected, abs=LOUDNESS_LU)


@pytest.mark.parametrize(("rate", "expected"), [(44_100, 0), (96_000, 0), (192_000, -3.01)])
def test_true_peak_of_a_sine_sampled_beside_its_peaks(rate, expected):
    """A quarter of the rate, 45° off: samples reach −3 dB, the points between them 0; 192 kHz has none."""
    time = np.arange(20_000)
    sine = np.hanning(20_000) * np.sin(2 * np.pi * time / 4 + np.pi / 4)
    assert measure_loudness(sine[:, None], rate).true_peak == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_true_peak_is_that_of_dense_resampling(seed):
    """Noise up to 0.8 of half the rate, resampled 16 times by its exact spectrum."""
    random = np.random.default_rng(seed)
    spectrum = np.fft.rfft(np.hanning(20_000)[:, None] * random.standard_normal((20_000, 2)), axis=0)
    spectrum[8_000:] = 0
    noise = np.fft.irfft(spectrum, axis=0)
    dense = 20 * np.log10(np.abs(scipy.signal.resample(noise, 16 * len(noise))).max())
    assert measure_loudness(noise, 44_100).true_peak == pytest.approx(dense, abs=TRUE_PEAK_DB)


@pytest.mark.parametrize("samples", [1, RATE // 10, RATE * 4 // 10 - 1, RATE * 3 - 1])
def test_short_audio_has_no_windows(samples):
    loudness = measure_loudness(tone(1 + samples / RATE, -20)[:samples], RATE)
    assert (loudness.integrated is None) == (samples < RATE * 4 // 10)
    assert loudness.range is None


def test_silence_has_no_loudness():
    loudness = measure_loudness(np.zeros((4 * RATE, 2)), RATE)
    assert loudness.integrated is loudness.range is loudness.true_peak is None
