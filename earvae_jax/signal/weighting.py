"""Perceptual weighting of audio: the published K-weighting FIR, exact ITU-R BS.1770 filters, A-weighting."""

import functools
import math

import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.signal
from jaxtyping import Array, Float

K_WEIGHTING_TAPS = 2049
A_WEIGHTING_TAPS = 101


def k_weight(audio: Float[Array, "B T C"], sample_rate: int) -> Float[Array, "B T C"]:
    """K-weighting as published with εar-VAE: a linear-phase FIR of 2049 taps, zero-padded to the same length.

    Linear phase keeps the phase losses meaningful; within 0.2 dB of ITU-R BS.1770 from 20 Hz to 20 kHz.
    """
    return fir_filter(audio, k_weighting_fir(sample_rate), delay=K_WEIGHTING_TAPS // 2)


def a_weight(audio: Float[Array, "B T C"], sample_rate: int) -> Float[Array, "B T C"]:
    """A-weighting as auraloss applies it: a linear-phase FIR of 101 taps, zero-padded to the same length."""
    return fir_filter(audio, a_weighting_fir(sample_rate), delay=A_WEIGHTING_TAPS // 2)


def bs1770_weight(audio: Float[Array, "B T C"], sample_rate: int) -> Float[Array, "B T C"]:
    """K-weighting exactly as ITU-R BS.1770-5 defines it: causal, minimum phase, at rest before the start.

    The recursion is applied as its impulse response, cut where less than 1e-10 of it remains, so that it
    runs as a few large transforms in place of one step per sample.
    """
    return fir_filter(audio, bs1770_impulse_response(sample_rate), delay=0)


def fir_filter(audio: Float[Array, "B T C"], taps: np.ndarray, *, delay: int) -> Float[Array, "B T C"]:
    """Convolves each channel with `taps`, zero outside the signal: `y[t] = Σ taps[i] · x[t + delay − i]`.

    The output has the input's length. Overlap-save in blocks of about eight times the taps, float32.
    """
    samples, reach = audio.shape[1], len(taps) - 1
    block = 1 << math.ceil(math.log2(len(taps) + min(samples, 7 * len(taps))))
    step = block - reach
    blocks = math.ceil(samples / step)
    signal = jnp.swapaxes(audio.astype(jnp.float32), 1, 2)  # [B, C, T]
    after = (blocks - 1) * step + block - samples - (reach - delay)
    signal = jnp.pad(signal, ((0, 0), (0, 0), (reach - delay, max(after, 0))))
    rows = [signal[..., start : start + block] for start in range(0, blocks * step, step)]
    spectra = jnp.fft.rfft(jnp.stack(rows, axis=2)) * _transfer(taps.tobytes(), taps.dtype.str, block)
    filtered = jnp.fft.irfft(spectra, block)[..., reach:]  # [B, C, blocks, step]
    filtered = filtered.reshape(*filtered.shape[:2], blocks * step)[..., :samples]
    return jnp.swapaxes(filtered, 1, 2)


@functools.lru_cache(maxsize=32)
def _transfer(taps: bytes, dtype: str, length: int) -> np.ndarray:
    return np.fft.rfft(np.frombuffer(taps, dtype).astype(np.float64), length).astype(np.complex64)


@functools.cache
def k_weighting_fir(sample_rate: int) -> np.ndarray:
    """The published K-weighting FIR at any sample rate, float32 `[2049]`.

    High-pass 38.135 Hz (Q 0.5) and +4 dB shelf at 1681.974 Hz (Q 0.7), bilinear without prewarping, and a
    least-squares fit of its magnitude at 16 384 frequencies.
    """
    pass_edge, shelf_edge, gain = 2 * np.pi * 38.135, 2 * np.pi * 1681.974, 10 ** (4 / 20)
    numerator = np.polymul([1, 0, 0], [gain, np.sqrt(gain) * shelf_edge / 0.7, shelf_edge**2])
    denominator = np.polymul(
        [1, pass_edge / 0.5, pass_edge**2],
        [1, shelf_edge / 0.7, shelf_edge**2],
    )
    return _fit_analog(numerator, denominator, sample_rate, K_WEIGHTING_TAPS, points=16384)


@functools.cache
def a_weighting_fir(sample_rate: int) -> np.ndarray:
    """A-weighting (IEC 61672) as auraloss fits it, float32 `[101]`, at any sample rate."""
    edge_1, edge_2, edge_3, edge_4 = 2 * np.pi * np.array([20.598997, 107.65265, 737.86223, 12194.217])
    numerator = np.array([edge_4**2 * 10 ** (1.9997 / 20), 0, 0, 0, 0])
    denominator = np.polymul([1, 2 * edge_4, edge_4**2], [1, 2 * edge_1, edge_1**2])
    denominator = np.polymul(np.polymul(denominator, [1, edge_3]), [1, edge_2])
    return _fit_analog(numerator, denominator, sample_rate, A_WEIGHTING_TAPS, points=512)


def _fit_analog(
    numerator: np.ndarray, denominator: np.ndarray, sample_rate: int, taps: int, *, points: int
) -> np.ndarray:
    digital = scipy.signal.bilinear(numerator, denominator, fs=sample_rate)
    _, response = scipy.signal.freqz(*digital, worN=points)
    return least_squares_fir(np.abs(response), taps).astype(np.float32)


def least_squares_fir(magnitude: np.ndarray, taps: int) -> np.ndarray:
    """Linear-phase FIR with the least squared deviation from a sampled magnitude, float64 `[taps]`.

    `magnitude[k]` is the target at `k / len(magnitude)` of half the sample rate; their number is even. The
    filter is that of `scipy.signal.firls`, which takes the points in pairs: within a pair the target is the
    straight line between the points, between pairs there is no target. Here two transforms compute the
    integrals over the bands, so that 2049 taps take milliseconds, not seconds.
    """
    if len(magnitude) % 2 or taps % 2 == 0:
        raise ValueError(f"needs an even number of points and odd taps, got {len(magnitude)} and {taps}")
    points, order = len(magnitude), taps // 2
    delay = np.arange(1, 2 * order + 1)
    edge_sign = np.tile([-1.0, 1.0], points // 2)
    # ∫ cos(π n f) and ∫ D(f) cos(π n f) over the bands [f₀, f₁]; by parts, with D' constant in each band.
    full = np.concatenate([[0.5], _sine_sum(edge_sign, 2 * order) / (np.pi * delay)])
    slope = np.repeat((magnitude[1::2] - magnitude[::2]) * points, 2)
    delay = delay[:order]
    wanted = _sine_sum(edge_sign * magnitude, order) / (np.pi * delay)
    wanted += _cosine_sum(edge_sign * slope, order) / (np.pi * delay) ** 2
    wanted = np.concatenate([[(magnitude[1::2] + magnitude[::2]).sum() / (2 * points)], wanted])
    normal = scipy.linalg.toeplitz(full[: order + 1]) + scipy.linalg.hankel(full[: order + 1], full[order:])
    half = scipy.linalg.solve(normal, wanted, assume_a="sym")
    return np.concatenate([half[:0:-1], [2 * half[0]], half[1:]])


def _sine_sum(weights: np.ndarray, count: int) -> np.ndarray:
    """`Σ_k weights[k] · sin(π n k / points)` for n = 1 … count."""
    return -np.fft.fft(weights, 2 * len(weights))[1 : count + 1].imag


def _cosine_sum(weights: np.ndarray, count: int) -> np.ndarray:
    return np.fft.fft(weights, 2 * len(weights))[1 : count + 1].real


@functools.cache
def bs1770_sections(sample_rate: int) -> np.ndarray:
    """The two biquads of ITU-R BS.1770-5 at any rate, float64 `[2, 6]` as `scipy.signal.sosfilt` takes them.

    The standard tabulates 48 kHz only. The parameters behind its table (as libebur128 and ffmpeg use them)
    reproduce it to 1e-12 and hold at any other rate.
    """
    ramp = math.tan(math.pi * 1681.974450955533 / sample_rate)
    quality, gain = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    middle = gain**0.4996667741545416
    scale = 1 + ramp / quality + ramp**2
    shelf = [
        (gain + middle * ramp / quality + ramp**2) / scale,
        2 * (ramp**2 - gain) / scale,
        (gain - middle * ramp / quality + ramp**2) / scale,
        1.0,
        2 * (ramp**2 - 1) / scale,
        (1 - ramp / quality + ramp**2) / scale,
    ]
    ramp, quality = math.tan(math.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    scale = 1 + ramp / quality + ramp**2
    high_pass = [1.0, -2.0, 1.0, 1.0, 2 * (ramp**2 - 1) / scale, (1 - ramp / quality + ramp**2) / scale]
    return np.array([shelf, high_pass])


@functools.cache
def bs1770_impulse_response(sample_rate: int) -> np.ndarray:
    """Impulse response of both sections, float64, cut after the last tap above 1e-10."""
    impulse = np.zeros(math.ceil(0.25 * sample_rate))
    impulse[0] = 1
    response = scipy.signal.sosfilt(bs1770_sections(sample_rate), impulse)
    return response[: np.flatnonzero(np.abs(response) > 1e-10)[-1] + 1]
