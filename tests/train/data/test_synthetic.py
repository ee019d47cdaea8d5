"""Synthetic music: the same for the same seed, different otherwise; music, neither noise nor silence."""

import hashlib

import numpy as np
import pytest

from earvae_jax.train.data import instruments, synthetic

RATE = 44_100


def _render(seed: int, index: int, samples: int = 16_384) -> np.ndarray:
    return synthetic.render(seed, index, samples=samples, sample_rate=RATE)


def test_is_determined_by_seed_and_index_alone():
    first, others = _render(3, 5), [_render(3, 6), _render(4, 5)]
    assert np.array_equal(first, _render(3, 5))
    assert len({hashlib.sha256(audio.tobytes()).hexdigest() for audio in (first, *others)}) == 3


@pytest.mark.parametrize("sample_rate", [44_100, 48_000, 16_000])
def test_is_finite_stereo_audio_within_full_scale(sample_rate):
    for index in range(12):
        audio = synthetic.render(0, index, samples=8192, sample_rate=sample_rate)
        assert audio.shape == (8192, 2)
        assert audio.dtype == np.float32
        assert np.isfinite(audio).all()
        assert np.abs(audio).max() <= 1


def test_pieces_differ_in_level_width_and_brightness():
    pieces = [_render(1, index) for index in range(40)]
    levels = np.array([20 * np.log10(np.sqrt(np.mean(piece**2)) + 1e-9) for piece in pieces])
    audible = [piece for piece, level in zip(pieces, levels, strict=True) if level > -60]
    assert len(audible) > 35
    assert np.std(levels[levels > -60]) > 3
    width = [np.std(piece[:, 0] - piece[:, 1]) / np.std(piece.sum(axis=1)) for piece in audible]
    assert np.percentile(width, 10) < 0.15
    assert np.percentile(width, 90) > 0.4
    spectra = [np.abs(np.fft.rfft(piece[:, 0])) ** 2 for piece in audible]
    frequency = np.fft.rfftfreq(pieces[0].shape[0], 1 / RATE)
    centroids = [np.sum(frequency * power) / np.sum(power) for power in spectra]
    assert np.percentile(centroids, 90) > 4 * np.percentile(centroids, 10)


@pytest.mark.parametrize("frequency", [55.0, 220.0, 440.0, 987.77])
def test_strings_and_voices_are_in_tune(frequency):
    rng = np.random.default_rng(0)
    timbre = instruments.Timbre(
        slope=1.5,
        odd_only=False,
        formants=(),
        dark_harmonics=8.0,
        attack=0.005,
        decay=0.5,
        sustain=0.8,
        release=0.05,
        vibrato_depth=0.0,
        vibrato_rate=5.0,
        breath=0.0,
    )
    notes = {
        "voice": instruments.voice(rng, timbre, frequency, 1.0, RATE),
        "pluck": instruments.pluck(rng, frequency, 1.0, RATE, damping=0.002, softness=0.3),
    }
    for name, note in notes.items():
        # The period is the autocorrelation's peak, found on the product spectrum of the harmonics.
        size = 1 << 18
        power = np.abs(np.fft.rfft(note * np.hanning(note.size), size)) ** 2
        low, high = (round(frequency * factor * size / RATE) for factor in (0.97, 1.03))
        found = (low + np.argmax(power[low:high])) * RATE / size
        cents = 1200 * np.log2(found / frequency)
        assert abs(cents) < 5, f"{name} of {frequency} Hz is off by {cents:.1f} cents"
