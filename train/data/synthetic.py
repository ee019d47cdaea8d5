"""Procedural stereo music, unlimited and seeded, rendered in numpy; training uses it when no data is given.

A piece is a key, a tempo, four chords and a few tracks (bass, chords, melodies, drums, noise), each with its
own instrument, place between the loudspeakers and effects. `render` cuts an excerpt out of such a piece;
the excerpt may start in the middle of notes, as a crop of a recording does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import fft, signal

from earvae_jax.train.data import instruments

_SCALES = (
    (0, 2, 4, 5, 7, 9, 11),
    (0, 2, 3, 5, 7, 8, 10),
    (0, 2, 3, 5, 7, 9, 10),
    (0, 3, 5, 7, 10),
    (0, 2, 4, 7, 9),
)
_LEAD_SECONDS = 0.4  # rendered before the excerpt and cut off, so that notes and reverberation already sound


@dataclass(frozen=True)
class _Piece:
    """What the tracks of one piece agree on."""

    beat: float  # seconds
    root: float  # MIDI note number
    scale: tuple[int, ...]
    chords: tuple[int, ...]  # degrees of the scale, one per bar of four beats
    start: float  # where rendering begins, seconds
    seconds: float  # and for how long
    sample_rate: int

    def frequency(self, degree: int, octave: int) -> float:
        """Hz of a scale degree; degrees beyond the scale continue in the next octave."""
        octaves, step = divmod(degree, len(self.scale))
        return 440.0 * 2 ** ((self.root + self.scale[step] + 12 * (octave + octaves) - 69) / 12)

    def onsets(self, division: float) -> list[tuple[float, int]]:
        """Grid times in seconds from the start, and the chord's degree there; `division` in beats."""
        step = self.beat * division
        indices = range(int(np.ceil(self.start / step)), int(np.ceil((self.start + self.seconds) / step)))
        return [(index * step - self.start, self.chords[int(index * division // 4) % 4]) for index in indices]


def _draw_piece(rng: np.random.Generator, seconds: float, sample_rate: int) -> _Piece:
    scale = _SCALES[rng.integers(len(_SCALES))]
    return _Piece(
        beat=60 / rng.uniform(65, 165),
        root=rng.uniform(36, 48),  # not only equal temperament at 440 Hz
        scale=scale,
        chords=tuple(int(degree) for degree in rng.integers(0, len(scale), 4)),
        start=rng.uniform(1, 20),
        seconds=seconds,
        sample_rate=sample_rate,
    )


class _Canvas:
    """A stereo track into which notes are mixed; `audio` is `[2, samples]`."""

    def __init__(self, samples: int, sample_rate: int):
        self.audio = np.zeros((2, samples), np.float32)
        self.sample_rate = sample_rate

    def add(
        self, note: np.ndarray, seconds: float, gain: float, pan: float, delay_seconds: float = 0.0
    ) -> None:
        """Mix a mono note at a time, at constant power for `pan` in -1 (left) .. 1 (right)."""
        angle = np.pi / 4 * (1 + pan)
        gains = gain * np.cos(angle), gain * np.sin(angle)
        delays = max(0.0, delay_seconds), max(0.0, -delay_seconds)
        for channel, (level, delay) in enumerate(zip(gains, delays, strict=True)):
            start = round((seconds + delay) * self.sample_rate)
            begin, end = max(start, 0), min(start + note.size, self.audio.shape[1])
            if begin < end:
                self.audio[channel, begin:end] += np.float32(level) * note[begin - start : end - start]


def _draw_pitched(rng: np.random.Generator, rate: int) -> Callable[[float, float], np.ndarray]:
    """Draw one instrument; it renders a note of (frequency in Hz, held seconds)."""
    kind = rng.choice(("voice", "pluck", "bell"), p=(0.6, 0.28, 0.12))
    if kind == "voice":
        timbre = instruments.draw_timbre(rng)
        return lambda frequency, seconds: instruments.voice(rng, timbre, frequency, seconds, rate)
    if kind == "pluck":
        damping, softness = 10 ** rng.uniform(-3, -1.7), rng.uniform(0.05, 0.5)
        ring = rng.uniform(0.4, 1.4)
        return lambda frequency, seconds: instruments.pluck(
            rng, frequency, max(seconds, ring), rate, damping=damping, softness=softness
        )
    return lambda frequency, seconds: instruments.bell(rng, frequency, seconds + rng.uniform(0.2, 0.8), rate)


def _bass(rng: np.random.Generator, piece: _Piece, canvas: _Canvas) -> None:
    instrument = _draw_pitched(rng, piece.sample_rate)
    octave, division = int(rng.integers(-1, 1)), float(rng.choice((0.5, 1.0, 2.0)))
    for time, chord in piece.onsets(division):
        if rng.random() < 0.85:
            degree = chord + int(rng.choice((0, 0, 0, 2, 4)))
            canvas.add(
                instrument(piece.frequency(degree, octave), 0.9 * division * piece.beat), time, 1.0, 0.0
            )


def _chords(rng: np.random.Generator, piece: _Piece, canvas: _Canvas) -> None:
    instrument = _draw_pitched(rng, piece.sample_rate)
    octave, division = int(rng.integers(1, 3)), float(rng.choice((0.5, 1.0, 2.0)))
    width, strum, detune = rng.uniform(0, 0.9), rng.uniform(0, 0.03), rng.uniform(0, 0.004)
    for time, chord in piece.onsets(division):
        if rng.random() < 0.75:
            for voice, degree in enumerate((0, 2, 4)):
                frequency = piece.frequency(chord + degree, octave) * (1 + detune * rng.standard_normal())
                pan = width * (voice - 1)
                canvas.add(instrument(frequency, division * piece.beat), time + strum * voice, 0.5, pan)


def _melody(rng: np.random.Generator, piece: _Piece, canvas: _Canvas) -> None:
    instrument = _draw_pitched(rng, piece.sample_rate)
    octave, division = int(rng.integers(1, 4)), float(rng.choice((0.25, 0.5, 1.0)))
    pan, delay = rng.uniform(-0.6, 0.6), rng.uniform(-0.0006, 0.0006)  # level and time difference
    degree = int(rng.integers(0, 7))
    for time, chord in piece.onsets(division):
        degree = int(np.clip(degree + rng.integers(-2, 3), -3, 10))
        if rng.random() < 0.7:
            frequency = piece.frequency(chord + degree, octave)
            canvas.add(instrument(frequency, division * piece.beat), time, rng.uniform(0.5, 1), pan, delay)


def _drums(rng: np.random.Generator, piece: _Piece, canvas: _Canvas) -> None:
    rate = piece.sample_rate
    sounds = {
        "kick": instruments.kick(rng, rate),
        "snare": instruments.snare(rng, rate),
        "cymbal": instruments.cymbal(rng, rate),
        "tom": instruments.tom(rng, rate),
    }
    level = {name: rng.uniform(0.3, 1.0) for name in sounds} | {"kick": rng.uniform(0.7, 1.6)}
    pan = {
        "kick": 0.0,
        "snare": rng.uniform(-0.2, 0.2),
        "cymbal": rng.uniform(-0.7, 0.7),
        "tom": rng.uniform(-0.9, 0.9),
    }
    for time, _ in piece.onsets(0.25):
        sixteenth = round((piece.start + time) / (piece.beat / 4)) % 16
        chance = {
            "kick": 0.95 if sixteenth in (0, 8) else 0.12,
            "snare": 0.95 if sixteenth in (4, 12) else 0.05,
            "cymbal": 0.85 if sixteenth % 2 == 0 else 0.3,
            "tom": 0.08,
        }
        for name, sound in sounds.items():
            if rng.random() < chance[name]:
                canvas.add(sound, time, level[name] * rng.uniform(0.6, 1), pan[name])


def _texture(rng: np.random.Generator, piece: _Piece, canvas: _Canvas) -> None:
    low = 10 ** rng.uniform(1.5, 3.5)
    common, wide = rng.uniform(0, 1), rng.uniform(0, 1)
    time = np.arange(canvas.audio.shape[1], dtype=np.float32) / np.float32(piece.sample_rate)
    swell = 1 + 0.7 * np.sin(2 * np.pi * (rng.uniform(0.1, 4) * time + rng.random())).astype(np.float32)
    high, tilt = low * 10 ** rng.uniform(0.2, 1.5), rng.uniform(0, 1)
    noises = [
        instruments.coloured_noise(rng, time.size, piece.sample_rate, low=low, high=high, tilt=tilt)
        for _ in range(3)
    ]
    for channel in (0, 1):
        canvas.audio[channel] += np.float32(0.25) * swell * (common * noises[0] + wide * noises[1 + channel])


# track, chance that a piece has it, range of its level in dB
_TRACKS: tuple[tuple[Callable[[np.random.Generator, _Piece, _Canvas], None], float, tuple[int, int]], ...] = (
    (_bass, 0.85, (-6, 3)),
    (_chords, 0.75, (-14, 0)),
    (_chords, 0.3, (-16, -3)),
    (_melody, 0.75, (-12, 0)),
)
_TRACKS += ((_melody, 0.35, (-14, -3)), (_drums, 0.7, (-10, 3)), (_texture, 0.25, (-24, -6)))


def _treat(rng: np.random.Generator, audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Filter, distort or widen one track; `[2, samples]`."""
    if rng.random() < 0.3:
        kind = rng.choice(("lowpass", "highpass", "bandpass"), p=(0.6, 0.2, 0.2))
        corner = 10 ** rng.uniform(2.5, 4) if kind == "lowpass" else 10 ** rng.uniform(1.6, 2.8)
        corners = (corner, corner * rng.uniform(4, 20)) if kind == "bandpass" else corner
        sections = signal.butter(
            1, np.minimum(corners, 0.45 * sample_rate), kind, fs=sample_rate, output="sos"
        )
        audio = signal.sosfilt(sections.astype(np.float32), audio).astype(np.float32)
    if rng.random() < 0.2:
        drive = np.float32(10 ** rng.uniform(0, 1.2))
        audio = np.tanh(drive * audio) / np.tanh(drive)
    if rng.random() < 0.2:  # a short delay of one channel
        shift = int(rng.uniform(0.0005, 0.02) * sample_rate)
        channel = int(rng.integers(2))
        audio = audio.copy()
        audio[channel, shift:] = audio[channel, : audio.shape[1] - shift]
    return audio


def _reverberate(rng: np.random.Generator, audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Add decaying stereo noise as the room; `[2, samples]`."""
    length = int(rng.uniform(0.1, 0.6) * sample_rate)
    decay = np.exp(-np.arange(length, dtype=np.float32) * np.float32(7 / length))
    room = rng.standard_normal((2, length), dtype=np.float32) * decay
    room /= np.sqrt((room**2).sum(axis=1, keepdims=True))
    size = fft.next_fast_len(audio.shape[1] + length, real=True)
    wet = fft.irfft(fft.rfft(audio, size) * fft.rfft(room, size), size)[:, : audio.shape[1]]
    return audio + np.float32(10 ** rng.uniform(-1.6, -0.4)) * wet


def _narrow(rng: np.random.Generator, audio: np.ndarray) -> np.ndarray:
    """The width of the master: often narrower than its tracks, sometimes mono; `[2, samples]`."""
    width = np.float32(0.0 if rng.random() < 0.05 else rng.uniform(0.1, 1.0))
    mid, side = (audio[0] + audio[1]) / 2, (audio[0] - audio[1]) / 2
    return np.stack([mid + width * side, mid - width * side])


def render(seed: int, index: int, *, samples: int, sample_rate: int) -> np.ndarray:
    """Render excerpt `index` of the endless data set `seed`.

    Returns float32 `[samples, 2]` with peaks below 1; the same arguments give the same samples.
    """
    rng = np.random.default_rng((seed, index))
    lead = int(_LEAD_SECONDS * sample_rate)
    total = lead + samples
    piece = _draw_piece(rng, total / sample_rate, sample_rate)
    mix = np.zeros((2, total), np.float32)
    for track, chance, (low, high) in _TRACKS:
        if rng.random() > chance:
            continue
        canvas = _Canvas(total, sample_rate)
        track(rng, piece, canvas)
        treated = _treat(rng, canvas.audio, sample_rate)
        loudness = np.sqrt(np.mean(treated**2)) + 1e-6
        mix += treated * np.float32(10 ** (rng.uniform(low, high) / 20) / loudness)
    if rng.random() < 0.6:
        mix = _reverberate(rng, mix, sample_rate)
    mix = _narrow(rng, mix[:, lead:])
    mix = mix / (np.sqrt(np.mean(mix**2)) + np.float32(1e-6))  # silence stays silent
    loudness = np.float32(10 ** (rng.uniform(-30, -9) / 20))
    return np.ascontiguousarray(np.tanh(mix * loudness).T)  # the limiter of a loud master
