"""Weighting filters against the recorded ones, scipy's design and the standard's own table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import FILTERED, FIR_TAPS

from earvae_jax.signal import weighting


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("sample_rate", [44_100, 48_000])
def test_k_weighting_fir_is_the_recorded_one(golden, sample_rate):
    recorded = np.load(golden / "losses" / "golden.npz")[f"kweight_fir_{sample_rate}"]
    np.testing.assert_allclose(weighting.k_weighting_fir(sample_rate), recorded, atol=FIR_TAPS)


@pytest.mark.parametrize("signal", ["target", "pred"])
def test_k_weighted_signals_are_the_recorded_ones(golden, signal):
    recorded = np.load(golden / "losses" / "golden.npz")
    audio = jnp.asarray(recorded[signal].swapaxes(1, 2))
    weighted = weighting.k_weight(audio, 48_000)
    np.testing.assert_allclose(weighted, recorded[f"{signal}_kweighted"].swapaxes(1, 2), atol=FILTERED)


@settings(max_examples=10, deadline=None)
@given(points=st.integers(8, 128).map(lambda n: 2 * n), half=st.integers(1, 8), seed=st.integers(0, 99))
def test_least_squares_fir_is_scipys(points, half, seed):
    magnitude = np.random.default_rng(seed).random(points)
    expected = scipy.signal.firls(2 * half + 1, np.arange(points) / points, magnitude)
    np.testing.assert_allclose(weighting.least_squares_fir(magnitude, 2 * half + 1), expected, atol=1e-9)


@pytest.mark.parametrize(("points", "taps"), [(63, 9), (64, 10)])
def test_least_squares_fir_refuses_odd_points_and_even_taps(points, taps):
    with pytest.raises(ValueError, match="odd taps"):
        weighting.least_squares_fir(np.ones(points), taps)


@pytest.mark.parametrize("sample_rate", [44_100, 48_000])
def test_a_weighting_is_auralosss(sample_rate):
    torch = pytest.importorskip("torch")
    perceptual = pytest.importorskip("auraloss.perceptual")
    reference = perceptual.FIRFilter("aw", fs=sample_rate)
    expected_taps = reference.fir.weight.data.numpy()[0, 0]
    np.testing.assert_allclose(weighting.a_weighting_fir(sample_rate), expected_taps, atol=FIR_TAPS)
    audio = noise(1, 3000, 1)
    expected, _ = reference(torch.from_numpy(audio.swapaxes(1, 2)), torch.zeros(1, 1, 3000))
    ours = weighting.a_weight(jnp.asarray(audio), sample_rate)
    np.testing.assert_allclose(ours[0, :, 0], expected[0, 0], atol=FILTERED)


@pytest.mark.parametrize("sample_rate", [44_100, 48_000, 96_000])
def test_k_weighting_fir_follows_the_standard_at_any_rate(sample_rate):
    """Within 0.26 dB of BS.1770 up to 20 kHz, from the lowest frequency that 2049 taps resolve."""
    hz = np.geomspace(20, 20_000, 200)
    _, exact = scipy.signal.sosfreqz(weighting.bs1770_sections(sample_rate), hz, fs=sample_rate)
    _, ours = scipy.signal.freqz(weighting.k_weighting_fir(sample_rate), 1, hz, fs=sample_rate)
    difference = 20 * np.log10(np.abs(ours) / np.abs(exact))
    resolved = hz > 2 * sample_rate / weighting.K_WEIGHTING_TAPS
    assert np.abs(difference[resolved]).max() < 0.26


def test_bs1770_sections_are_the_standards_table():
    """The coefficients that ITU-R BS.1770-5 prints for 48 kHz, all digits."""
    shelf, high_pass = weighting.bs1770_sections(48_000)
    expected = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585]
    np.testing.assert_allclose(shelf, expected, atol=1e-12)
    np.testing.assert_allclose(high_pass, [1, -2, 1, 1, -1.99004745483398, 0.99007225036621], atol=1e-12)


@settings(max_examples=6, deadline=None)
@given(samples=st.integers(1, 60_000), sample_rate=st.sampled_from([8_000, 44_100, 48_000]))
def test_bs1770_weighting_is_the_recursion(samples, sample_rate):
    audio = noise(1, samples, 2)
    exact = scipy.signal.sosfilt(weighting.bs1770_sections(sample_rate), audio.astype(np.float64), axis=1)
    ours = weighting.bs1770_weight(jnp.asarray(audio), sample_rate)
    np.testing.assert_allclose(ours, exact, atol=FILTERED)


@settings(max_examples=10, deadline=None)
@given(samples=st.integers(1, 400), taps=st.integers(1, 40), data=st.data())
def test_fir_filter_is_a_convolution(samples, taps, data):
    delay = data.draw(st.integers(0, taps - 1))
    audio, response = noise(2, samples, 2), noise(taps)
    full = np.apply_along_axis(np.convolve, 1, audio, response)
    ours = weighting.fir_filter(jnp.asarray(audio), response, delay=delay)
    np.testing.assert_allclose(ours, full[:, delay : delay + samples], atol=FILTERED)


def test_weighting_is_its_own_adjoint():
    """A symmetric filter's gradient is the filter itself: ⟨Kx, y⟩ = ⟨x, Ky⟩."""
    x, y = jnp.asarray(noise(1, 5000, 2)), jnp.asarray(noise(1, 5000, 2)[:, ::-1])
    gradient = jax.grad(lambda x: jnp.vdot(weighting.k_weight(x, 44_100), y))(x)
    np.testing.assert_allclose(gradient, weighting.k_weight(y, 44_100), atol=FILTERED)
