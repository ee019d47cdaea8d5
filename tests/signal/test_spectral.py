"""Spectra against torch and against their definitions, and gradients where others give NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import PHASE, SPECTRUM

from earvae_jax.signal import spectral


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(max_examples=12, deadline=None)
@given(
    n_fft=st.integers(2, 64).map(lambda half: 2 * half),
    hop=st.integers(1, 140),
    extra=st.integers(0, 300),
    shorter=st.integers(0, 3),
    center=st.booleans(),
)
def test_stft_is_torchs(n_fft, hop, extra, shorter, center):
    """Any even size and hop, hops beyond the window, windows shorter than the frame."""
    torch = pytest.importorskip("torch")
    audio = noise(2, n_fft + extra, 2)
    window_length = max(2, n_fft - shorter)
    ours = spectral.stft(
        jnp.asarray(audio), n_fft=n_fft, hop_length=hop, window_length=window_length, center=center
    )
    theirs = torch.stft(
        torch.from_numpy(audio.swapaxes(1, 2).reshape(4, -1).copy()),
        n_fft,
        hop,
        window_length,
        torch.hann_window(window_length),
        center=center,
        return_complex=True,
    )
    assert ours.shape[2] == spectral.frame_count(audio.shape[1], n_fft, hop, center=center)
    theirs = theirs.transpose(1, 2).reshape(2, 2, -1, n_fft // 2 + 1).numpy()
    np.testing.assert_allclose(np.asarray(ours), theirs, atol=SPECTRUM * np.sqrt(n_fft))


def test_stft_of_half_precision_is_computed_in_float32():
    audio = jnp.asarray(noise(1, 300, 2)).astype(jnp.bfloat16)
    spectrum = spectral.stft(audio, n_fft=64, hop_length=16)
    exact = spectral.stft(audio.astype(jnp.float32), n_fft=64, hop_length=16)
    assert spectrum.dtype == jnp.complex64
    np.testing.assert_array_equal(spectrum, exact)


@pytest.mark.parametrize(("samples", "center"), [(63, False), (32, True)])
def test_audio_shorter_than_a_frame_is_refused(samples, center):
    with pytest.raises(ValueError, match=f"{samples} samples"):
        spectral.stft(jnp.zeros((1, samples, 2)), n_fft=64, hop_length=16, center=center)


def test_a_window_longer_than_the_frame_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        spectral.stft(jnp.zeros((1, 100, 2)), n_fft=64, hop_length=16, window_length=65)


def test_phase_equals_the_angle_and_is_half_open():
    real, imaginary = np.float32(noise(2, 200_000))
    numbers = np.concatenate([real + 1j * imaginary, [0, 1, -1, 1j, -1j, 1e-18 - 1e-18j]]).astype(
        np.complex64
    )
    phase = np.asarray(spectral.phase(jnp.asarray(numbers)))
    expected = np.angle(numbers.astype(np.complex128))
    expected[expected == np.pi] = -np.pi
    np.testing.assert_allclose(phase, expected, atol=PHASE)


def test_phase_gradient_is_the_angles_and_zero_at_zero():
    torch = pytest.importorskip("torch")
    numbers = noise(2, 1000)

    def turned(parts):
        return jnp.sum(spectral.phase(jax.lax.complex(*parts)) * jnp.arange(parts.shape[-1]))

    gradient = jax.grad(turned)(jnp.asarray(numbers))
    tensors = torch.from_numpy(numbers).requires_grad_()
    (torch.angle(torch.complex(*tensors)) * torch.arange(1000)).sum().backward()
    np.testing.assert_allclose(gradient, tensors.grad, rtol=1e-4)
    np.testing.assert_array_equal(jax.grad(turned)(jnp.zeros((2, 5))), 0)


def test_magnitude_gradient_is_finite_everywhere():
    def total(parts):
        return jnp.sum(spectral.magnitude(jax.lax.complex(*parts)))

    parts = jnp.asarray([[0, 1e-30, 1e-5, 3.0], [0, 0, 0, 4.0]])
    np.testing.assert_allclose(jax.grad(total)(parts), [[0, 0, 0, 0.6], [0, 0, 0, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(spectral.magnitude(jax.lax.complex(*parts)), [1e-4, 1e-4, 1e-4, 5], rtol=1e-6)


def test_wrapped_phase():
    angles = jnp.asarray([0, 3, 3.5, -3.5, 9.0])
    expected = [0, 3, 3.5 - 2 * np.pi, 2 * np.pi - 3.5, 9 - 2 * np.pi]
    np.testing.assert_allclose(spectral.wrap_phase(angles), expected, atol=1e-6)
    np.testing.assert_array_equal(jax.grad(lambda x: spectral.wrap_phase(x).sum())(angles), 1)


def test_mid_and_side():
    audio = jnp.asarray([[[1.0, 0.5], [0.25, -0.25]]])
    np.testing.assert_array_equal(spectral.mid_side(audio), [[[0.75, 0.25], [0, 0.25]]])
    with pytest.raises(ValueError, match="2 channels"):
        spectral.mid_side(audio[..., :1])


@pytest.mark.parametrize(
    ("sample_rate", "n_fft", "n_mels"), [(44_100, 4096, 64), (44_100, 512, 64), (8000, 256, 20)]
)
def test_mel_filters_stand_where_slaneys_scale_puts_them(sample_rate, n_fft, n_mels):
    """Known points of the scale, equal spacing on it, unit area, and no filter beyond its neighbours."""
    filters = spectral.mel_filters(sample_rate, n_fft, n_mels)
    assert filters.shape == (n_fft // 2 + 1, n_mels)
    assert (filters >= 0).all()
    top = 15 + 27 * np.log(sample_rate / 2000) / np.log(6.4)  # 1 kHz is 15 mel, 6.4 kHz is 42
    hz = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
    mel = np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4))
    step = top / (n_mels + 1)
    for index in range(n_mels):
        inside = np.abs(mel - (index + 1) * step) < step
        assert not filters[~inside, index].any()
        assert (filters[inside & (np.abs(mel - (index + 1) * step) < 0.999 * step), index] > 0).all()
    wide = filters[:, -1]  # many bins fall into it, so that the sum is close to the area
    np.testing.assert_allclose(wide.sum() * sample_rate / n_fft, 1, rtol=0.05)
