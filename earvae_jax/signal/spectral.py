"""Short-time spectra with gradients that stay finite: STFT, magnitude, phase, mel filters, mid/side."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

# Least-squares minimax of atan(a) / a in a² on [0, 1]: 1.1e-7 rad of error in float32. XLA's own arctan2 is
# scalar code on the CPU, 40 ns an element; this one vectorises.
_ARCTAN = (
    0.9999998807907104,
    -0.33332598209381104,
    0.19985905289649963,
    -0.1416122168302536,
    0.10498920828104019,
    -0.07234809547662735,
    0.03978070244193077,
    -0.014401055872440338,
    0.0024566526990383863,
)
# Below this power a bin counts as zero for the phase gradient, so that 1 / |X| stays finite in float32.
_ZERO_POWER = 1e-30


@functools.cache
def hann_window(length: int) -> np.ndarray:
    """Periodic Hann window, float32 `[length]`, as `torch.hann_window` gives it."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


def frame_count(samples: int, n_fft: int, hop_length: int, *, center: bool) -> int:
    """Frames of an STFT of `samples` samples: `⌊(T + (n_fft if center else 0) − n_fft) / hop⌋ + 1`."""
    return (samples + (n_fft // 2 * 2 if center else 0) - n_fft) // hop_length + 1


def frame(signal: Float[Array, "... T"], frame_length: int, hop_length: int) -> Float[Array, "... K L"]:
    """Overlapping frames of the last axis: `K = ⌊(T − L) / hop⌋ + 1`; samples after the last are left out.

    Any hop works. The frames are shifted views of a `[blocks, hop]` reshape, whose transpose is a plain sum;
    a gather would become a scatter in the gradient, ten times slower on the CPU.
    """
    frames = frame_count(signal.shape[-1], frame_length, hop_length, center=False)
    if frames < 1:
        raise ValueError(f"{signal.shape[-1]} samples are fewer than one frame of {frame_length}")
    shifts = math.ceil(frame_length / hop_length)
    needed = (frames - 1 + shifts) * hop_length
    missing = max(needed - signal.shape[-1], 0)
    padded = jnp.pad(signal, [(0, 0)] * (signal.ndim - 1) + [(0, missing)])[..., :needed]
    blocks = padded.reshape(*signal.shape[:-1], frames - 1 + shifts, hop_length)
    views = [blocks[..., shift : shift + frames, :] for shift in range(shifts)]
    return jnp.concatenate(views, axis=-1)[..., :frame_length]


def stft(
    audio: Float[Array, "B T C"],
    *,
    n_fft: int,
    hop_length: int,
    window_length: int | None = None,
    center: bool = True,
) -> Complex[Array, "B C K F"]:
    """Short-time Fourier transform with a periodic Hann window, unnormalised, as `torch.stft` computes it.

    Args:
        audio: any float dtype; computed in float32.
        n_fft: frame and transform length; `F = n_fft // 2 + 1`.
        hop_length: samples between frames, any positive number.
        window_length: length of the window, zero-padded on both sides to `n_fft`; `n_fft` by default.
        center: reflect `n_fft // 2` samples at both ends, so that frame k is centred on sample `k · hop`.

    Returns:
        `[B, C, K, F]` with `K = ⌊T / hop⌋ + 1` if centred (even `n_fft`), else `⌊(T − n_fft) / hop⌋ + 1`.

    Raises:
        ValueError: the audio is shorter than one frame, or than the reflection when centred.
    """
    signal = jnp.swapaxes(audio.astype(jnp.float32), 1, 2)
    if center:
        reach = n_fft // 2
        if signal.shape[-1] <= reach:
            raise ValueError(f"{signal.shape[-1]} samples are too few to reflect {reach} at the ends")
        signal = jnp.pad(signal, ((0, 0), (0, 0), (reach, reach)), mode="reflect")
    return jnp.fft.rfft(frame(signal, n_fft, hop_length) * _padded_window(n_fft, window_length or n_fft))


@functools.cache
def _padded_window(n_fft: int, window_length: int) -> np.ndarray:
    if not 0 < window_length <= n_fft:
        raise ValueError(f"a window of {window_length} samples does not fit n_fft = {n_fft}")
    before = (n_fft - window_length) // 2
    return np.pad(hann_window(window_length), (before, n_fft - window_length - before))


def power(spectrum: Complex[Array, "..."]) -> Float[Array, "..."]:
    """`|X|²`, with gradient 0 at zero bins, where the square root in a modulus has none."""
    return spectrum.real**2 + spectrum.imag**2


def magnitude(spectrum: Complex[Array, "..."], *, floor: float = 1e-8) -> Float[Array, "..."]:
    """`√max(|X|², floor)`, as auraloss floors it; the gradient below the floor is exactly zero."""
    return jnp.sqrt(jnp.maximum(power(spectrum), floor))


@jax.custom_jvp
def phase(spectrum: Complex[Array, "..."]) -> Float[Array, "..."]:
    """Angle in [−π, π); 0 at zero bins, where the gradient is 0 too (`jnp.angle` gives NaN there)."""
    real, imaginary = spectrum.real, spectrum.imag
    width, height = jnp.abs(real), jnp.abs(imaginary)
    longer = jnp.maximum(width, height)
    slope = jnp.minimum(width, height) / jnp.where(longer > 0, longer, 1)
    squared = slope * slope
    series = jnp.full_like(squared, _ARCTAN[-1])
    for coefficient in _ARCTAN[-2::-1]:
        series = series * squared + coefficient
    angle = series * slope
    angle = jnp.where(height > width, np.pi / 2 - angle, angle)
    angle = jnp.where(real < 0, np.pi - angle, angle)
    # A real negative value counts as −π, so that the interval is half open.
    return jnp.where((imaginary < 0) | ((imaginary == 0) & (real < 0)), -angle, angle)


@phase.defjvp
def _phase_jvp(primals, tangents):
    (spectrum,), (tangent,) = primals, tangents
    squared = power(spectrum)
    inverse = jnp.where(squared > _ZERO_POWER, 1 / jnp.where(squared > _ZERO_POWER, squared, 1), 0)
    return phase(spectrum), (spectrum.real * tangent.imag - spectrum.imag * tangent.real) * inverse


def wrap_phase(angle: Float[Array, "..."]) -> Float[Array, "..."]:
    """The same angle in [−π, π]; the gradient is 1 everywhere."""
    return angle - 2 * np.pi * jax.lax.stop_gradient(jnp.round(angle / (2 * np.pi)))


def mid_side(audio: Float[Array, "B T 2"]) -> Float[Array, "B T 2"]:
    """Left and right to mid `(L + R) / 2` and side `(L − R) / 2`."""
    if audio.shape[-1] != 2:
        raise ValueError(f"mid and side need 2 channels, the audio has {audio.shape[-1]}")
    left, right = audio[..., 0], audio[..., 1]
    return jnp.stack([left + right, left - right], axis=-1) / 2


@functools.cache
def mel_filters(
    sample_rate: int, n_fft: int, n_mels: int, *, low: float = 0.0, high: float | None = None
) -> np.ndarray:
    """Triangular mel filters on Slaney's scale, of unit area (librosa's default), float32 `[F, n_mels]`.

    Args:
        low, high: edges of the first and last filter in Hz; `high` is half the sample rate by default.
    """
    edges = _mel_to_hz(np.linspace(_hz_to_mel(low), _hz_to_mel(high or sample_rate / 2), n_mels + 2))
    bins = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
    widths = np.diff(edges)
    rising = (bins[:, None] - edges[:-2]) / widths[:-1]
    falling = (edges[2:] - bins[:, None]) / widths[1:]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * 2 / (edges[2:] - edges[:-2])).astype(np.float32)


# Slaney's scale (Auditory Toolbox): linear to 1 kHz at 200/3 Hz per mel, then 27 mels for each factor of 6.4.
_MEL_HZ, _MEL_KNEE_HZ, _MEL_STEP = 200 / 3, 1000.0, math.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    if hz < _MEL_KNEE_HZ:
        return hz / _MEL_HZ
    return _MEL_KNEE_HZ / _MEL_HZ + math.log(hz / _MEL_KNEE_HZ) / _MEL_STEP


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    knee = _MEL_KNEE_HZ / _MEL_HZ
    return np.where(
        mel < knee, mel * _MEL_HZ, _MEL_KNEE_HZ * np.exp(_MEL_STEP * (np.maximum(mel, knee) - knee))
    )
