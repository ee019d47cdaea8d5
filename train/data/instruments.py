"""Sound sources of the procedural music: tuned voices, plucked strings, bells, drums and coloured noise.

Every function draws its random choices from the generator it is given and returns float32 mono samples around
[-1, 1]. Work is done in whole-array numpy calls, so that several sources render in parallel threads.
"""

from dataclasses import dataclass

import numpy as np

_TABLE_SIZE = 8192
_MOST_HARMONICS = 80


@dataclass(frozen=True)
class Timbre:
    """What stays the same over the notes of one track."""

    slope: float  # harmonic h has amplitude h ** -slope
    odd_only: bool  # hollow, clarinet-like spectrum
    formants: tuple[tuple[float, float, float], ...]  # (centre Hz, width Hz, gain)
    dark_harmonics: float  # harmonics left once the bright attack has passed
    attack: float  # seconds
    decay: float  # seconds to fall to the sustain level by 1/e
    sustain: float  # 0..1
    release: float  # seconds
    vibrato_depth: float  # relative change of frequency
    vibrato_rate: float  # Hz
    breath: float  # amplitude of the noise added to the tone


def draw_timbre(rng: np.random.Generator) -> Timbre:
    """Draw a sustained or a decaying voice."""
    formants = tuple(
        (rng.uniform(low, high), rng.uniform(80, 300), rng.uniform(1, 6))
        for low, high in ((300, 900), (900, 2500), (2300, 3500))
        if rng.random() < 0.45
    )
    percussive = rng.random() < 0.5
    return Timbre(
        slope=rng.uniform(0.6, 2.4),
        odd_only=rng.random() < 0.2,
        formants=formants,
        dark_harmonics=rng.uniform(1.5, 20),
        attack=10 ** rng.uniform(-2.8, -1.9 if percussive else -0.8),
        decay=rng.uniform(0.08, 0.9),
        sustain=0.0 if percussive else rng.uniform(0.3, 0.9),
        release=rng.uniform(0.02, 0.3),
        vibrato_depth=rng.uniform(0.001, 0.008) if rng.random() < 0.4 else 0.0,
        vibrato_rate=rng.uniform(4, 7),
        breath=rng.uniform(0.005, 0.08) if rng.random() < 0.25 else 0.0,
    )


def _time(count: int, sample_rate: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32) / np.float32(sample_rate)


def _envelope(timbre: Timbre, count: int, held: int, sample_rate: int) -> np.ndarray:
    """Attack, exponential decay to the sustain level, release after `held` samples."""
    time = _time(count, sample_rate)
    level = timbre.sustain + (1 - timbre.sustain) * np.exp(-time / np.float32(timbre.decay))
    level *= np.minimum(1, time / np.float32(timbre.attack))
    level *= np.clip((count - np.arange(count, dtype=np.float32)) / max(1, count - held), 0, 1)
    return level.astype(np.float32)


def _wave_tables(rng: np.random.Generator, timbre: Timbre, frequency: float, sample_rate: int) -> np.ndarray:
    """One period of the bright and of the dark spectrum, band-limited, `[2, table]`."""
    count = int(np.clip(0.45 * sample_rate / frequency, 1, _MOST_HARMONICS))
    harmonic = np.arange(1, count + 1)
    amplitude = harmonic**-timbre.slope * rng.uniform(0.5, 1.0, count)
    if timbre.odd_only:
        amplitude[1::2] *= 0.05
    for centre, width, gain in timbre.formants:
        amplitude *= 1 + gain * np.exp(-(((harmonic * frequency - centre) / width) ** 2))
    spectrum = np.zeros((2, _TABLE_SIZE // 2 + 1), np.complex64)
    bright = amplitude * np.exp(2j * np.pi * rng.random(count))
    spectrum[0, 1 : count + 1] = bright
    spectrum[1, 1 : count + 1] = bright * np.exp(-harmonic / timbre.dark_harmonics)
    tables = np.fft.irfft(spectrum, axis=1).astype(np.float32)
    return tables / (np.abs(tables[0]).max() + 1e-9)


def voice(
    rng: np.random.Generator, timbre: Timbre, frequency: float, held_seconds: float, sample_rate: int
) -> np.ndarray:
    """A tuned note whose spectrum darkens from its attack on; `[samples]` with the release included."""
    held = int(held_seconds * sample_rate)
    count = held + int(timbre.release * sample_rate) + 1
    time = _time(count, sample_rate)
    phase = np.float32(frequency) * time + np.float32(rng.random())
    if timbre.vibrato_depth:
        angle = np.float32(2 * np.pi * timbre.vibrato_rate) * time
        phase += np.float32(frequency * timbre.vibrato_depth / (2 * np.pi * timbre.vibrato_rate)) * np.sin(
            angle
        )
    index = (phase * np.float32(_TABLE_SIZE)).astype(np.int32) & (_TABLE_SIZE - 1)
    bright, dark = _wave_tables(rng, timbre, frequency, sample_rate)
    darkness = 1 - np.exp(-time / np.float32(timbre.decay))
    note = bright[index] * (1 - darkness) + dark[index] * darkness
    if timbre.breath:
        note += np.float32(timbre.breath) * rng.standard_normal(count, dtype=np.float32)
    return note * _envelope(timbre, count, held, sample_rate)


def pluck(
    rng: np.random.Generator,
    frequency: float,
    seconds: float,
    sample_rate: int,
    *,
    damping: float,
    softness: float,
) -> np.ndarray:
    """A plucked string by Karplus and Strong (1983); `[samples]`.

    `damping` is the loss per period at the fundamental, `softness` in 0..0.5 the weight of the string's
    low-pass. The loop's gain per period is applied to the spectrum of one period, so all periods come from
    one inverse FFT; the string has a whole number of samples and the result is resampled to the exact pitch.
    """
    period = max(8, round(sample_rate / frequency))
    ratio = frequency * period / sample_rate
    count = int(seconds * sample_rate)
    rounds = int(np.ceil((count * ratio + 2) / period))
    excitation = rng.uniform(-1, 1, period).astype(np.float32)
    comb = np.roll(excitation, max(1, int(period * rng.uniform(0.08, 0.5))))  # where the string is plucked
    spectrum = np.fft.rfft(excitation - comb)
    turn = np.arange(spectrum.size) * (2 * np.pi / period)
    gain = (1 - damping) * np.abs(1 - softness + softness * np.exp(-1j * turn))
    decay = np.outer(np.arange(rounds, dtype=np.float32), np.log(gain).astype(np.float32))
    line = np.fft.irfft(spectrum.astype(np.complex64) * np.exp(decay), period, axis=1).reshape(-1)
    position = np.arange(count, dtype=np.float32) * np.float32(ratio)
    before = position.astype(np.int32)
    fraction = position - before
    note = line[before] * (1 - fraction) + line[before + 1] * fraction
    return note * np.minimum(1, (count - np.arange(count, dtype=np.float32)) / np.float32(0.01 * sample_rate))


def bell(rng: np.random.Generator, frequency: float, seconds: float, sample_rate: int) -> np.ndarray:
    """A frequency-modulated bell or electric piano; `[samples]`."""
    time = _time(int(seconds * sample_rate), sample_rate)
    ratio = rng.choice((1.0, 2.0, 3.0, 1.41, 3.5, 7.0))
    if frequency * ratio > 0.3 * sample_rate:
        ratio = 1.0
    index = np.float32(rng.uniform(0.3, 4)) * np.exp(-time / np.float32(rng.uniform(0.05, 0.5)))
    turn = np.float32(2 * np.pi * frequency) * time
    note = np.sin(turn + index * np.sin(np.float32(ratio) * turn))
    return note * np.exp(-time / np.float32(seconds / 4)) * np.minimum(1, time / np.float32(0.002))


def coloured_noise(
    rng: np.random.Generator, count: int, sample_rate: int, *, low: float, high: float, tilt: float
) -> np.ndarray:
    """Noise between two frequencies, amplitude falling as frequency ** -tilt; `[count]`, unit deviation."""
    size = 1 << max(4, (count - 1).bit_length())  # a power of two keeps the FFT fast
    frequency = np.arange(size // 2 + 1, dtype=np.float32) * np.float32(sample_rate / size)
    frequency[0] = frequency[1]
    shape = frequency ** np.float32(-tilt)
    shape /= np.sqrt((1 + (np.float32(low) / frequency) ** 4) * (1 + (frequency / np.float32(high)) ** 4))
    spectrum = rng.standard_normal(2 * shape.size, dtype=np.float32).view(np.complex64) * shape
    noise = np.fft.irfft(spectrum, size)[:count].astype(np.float32)
    return noise / (noise.std() + np.float32(1e-9))


def kick(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """A bass drum: a sine falling to 35..65 Hz, with a click; `[samples]`."""
    time = _time(int(rng.uniform(0.18, 0.5) * sample_rate), sample_rate)
    end, drop, fall = rng.uniform(35, 65), rng.uniform(40, 300), rng.uniform(0.01, 0.05)
    phase = np.float32(end) * time + np.float32(drop * fall) * (1 - np.exp(-time / np.float32(fall)))
    body = np.sin(np.float32(2 * np.pi) * phase) * np.exp(-time / np.float32(rng.uniform(0.06, 0.2)))
    click = rng.uniform(0, 0.5) * rng.standard_normal(time.size, dtype=np.float32)
    return (body + click * np.exp(-time / np.float32(0.003))).astype(np.float32)


def snare(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """A snare drum or clap: band noise over a short tone; `[samples]`."""
    count = int(rng.uniform(0.1, 0.3) * sample_rate)
    time = _time(count, sample_rate)
    noise = coloured_noise(
        rng, count, sample_rate, low=rng.uniform(300, 1500), high=rng.uniform(4000, 12000), tilt=0.2
    )
    tone = np.sin(np.float32(2 * np.pi * rng.uniform(150, 260)) * time) * np.exp(-time / np.float32(0.05))
    rattle = 0.4 * noise * np.exp(-time / np.float32(rng.uniform(0.03, 0.12)))
    return (rattle + np.float32(rng.uniform(0, 0.8)) * tone).astype(np.float32)


def cymbal(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """A hi-hat, shaker or ride: high noise, short or long; `[samples]`."""
    length = rng.uniform(0.015, 0.06) if rng.random() < 0.75 else rng.uniform(0.1, 0.3)
    count = int(4 * length * sample_rate)
    noise = coloured_noise(rng, count, sample_rate, low=rng.uniform(4000, 9000), high=16000, tilt=0.0)
    return 0.3 * noise * np.exp(-_time(count, sample_rate) / np.float32(length))


def tom(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """A tom, conga or wood block: a damped tone with a slight fall in pitch; `[samples]`."""
    length = rng.uniform(0.03, 0.15)
    time = _time(int(5 * length * sample_rate), sample_rate)
    frequency = 10 ** rng.uniform(1.9, 2.8)
    phase = np.float32(frequency) * (time + np.float32(0.006) * (1 - np.exp(-time / np.float32(0.02))))
    return np.sin(np.float32(2 * np.pi) * phase) * np.exp(-time / np.float32(length))
