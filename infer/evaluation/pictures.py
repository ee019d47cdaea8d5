"""Pictures of a pair for the report: spectrograms and stereo fields, as PNG without axes.

Axes and labels belong to the page, which knows its width and whether it is dark.
"""

import dataclasses
import itertools
import struct
import zlib

import numpy as np
from jaxtyping import Float, Int, UInt8

from earvae_jax.signal.spectral import hann_window

LOWEST_HZ, HIGHEST_HZ = 30.0, 20_000.0
DYNAMIC_RANGE = 90.0  # dB shown below the loudest point
LEAST_LOUD = -60.0  # dB: the bright end of the colours is never lower, so that silence is dark
LARGEST_DIFFERENCE = 12.0  # dB at which the colours of a difference end
FRAME = 4096  # samples of a column
HEIGHT = 240  # pixels of a spectrogram
_WIDTH = 1000
_FIELD = 192  # pixels of a stereo field's side
# From silence to full level: black, violet, red, orange, pale yellow; even steps of lightness.
_HEAT = "000004 160b39 420a68 6a176e 932667 bc3754 dd513a f37819 fca50a f6d746 fcffa4"
# Lost energy and added energy; both fade to transparent at no difference, to suit light and dark pages.
_LOST, _ADDED = "2b7de0", "e8590c"


@dataclasses.dataclass(frozen=True)
class Spectrograms:
    """PNG files over the same time and log frequency, low frequencies at the bottom."""

    original: bytes
    reconstruction: bytes
    difference: bytes  # of the signals, reconstruction minus original
    change: bytes  # of the level in dB, reconstruction minus original
    loudest: float  # dB of a full-scale sine at the bright end of the colours


def spectrograms(
    original: Float[np.ndarray, "T C"], reconstruction: Float[np.ndarray, "T C"], sample_rate: int
) -> Spectrograms:
    """Power of all channels together on 30 Hz … 20 kHz; one scale of colours for the three signals."""
    signals = (original, reconstruction, reconstruction - original)
    powers = [_log_frequency_power(x, sample_rate) for x in signals]
    levels = [decibels(power) for power in powers]
    loudest = max(*(float(level.max()) for level in levels[:2]), LEAST_LOUD)
    one, other, difference = (heat(level, loudest) for level in levels)
    # Single bins of noise differ by chance, so compare the energy of small neighbourhoods.
    smooth = [decibels(_smoothed(power)) for power in powers[:2]]
    change = np.clip((smooth[1] - smooth[0]) / LARGEST_DIFFERENCE, -1, 1)
    audible = np.clip((np.maximum(*smooth) - loudest + DYNAMIC_RANGE) / 20, 0, 1)
    changed = _png(128 + 127 * change * audible, _diverging())
    return Spectrograms(one, other, difference, changed, loudest)


def stereo_field(audio: Float[np.ndarray, "T 2"], scale: float) -> bytes:
    """Goniometer as PNG: mid upwards, side sideways, the left channel towards the upper left; mono is a line.

    `scale` is the magnitude at the edge; the opacity is the logarithm of how often a place is visited.
    """
    left, right = audio.T / max(scale, 1e-9)
    count, _, _ = np.histogram2d(
        -(left + right) / 2, (right - left) / 2, bins=_FIELD, range=[[-1, 1], [-1, 1]]
    )
    visited = np.log1p(count)
    opacity = visited / max(visited.max(), 1e-9)
    ramp = np.zeros((256, 4), np.uint8)
    ramp[:, 3] = 255 * np.linspace(0, 1, 256) ** 0.7  # the page colours it: the picture is a mask
    return _png(255 * opacity, ramp)


def _log_frequency_power(audio: np.ndarray, sample_rate: int) -> Float[np.ndarray, "H W"]:
    samples = len(audio)
    centres = np.linspace(0, max(samples - 1, 1), min(_WIDTH, max(samples // 64, 2))).astype(int)
    padded = np.pad(audio.astype(np.float32), ((FRAME // 2, FRAME // 2), (0, 0)))
    return log_frequency_power(padded, centres, sample_rate)


def log_frequency_power(
    audio: Float[np.ndarray, "T C"], starts: Int[np.ndarray, " W"], sample_rate: int
) -> Float[np.ndarray, "H W"]:
    """Power relative to a full-scale sine, the mean of each row's bins, from high to low frequency.

    A column is the `FRAME` samples from each of `starts` on.
    """
    window = hann_window(FRAME)
    power = np.stack(
        [
            np.sum(np.abs(np.fft.rfft(audio[start : start + FRAME] * window[:, None], axis=0)) ** 2, axis=1)
            for start in starts
        ],
        axis=1,
    )  # [F, W]
    power *= (4 / FRAME) ** 2 / audio.shape[1]
    highest = min(HIGHEST_HZ, sample_rate / 2)
    edges = np.geomspace(highest, LOWEST_HZ, HEIGHT + 1) * FRAME / sample_rate
    summed = np.concatenate([np.zeros((1, power.shape[1])), np.cumsum(power, axis=0)])
    rows = []
    for upper, lower in itertools.pairwise(edges):
        if upper - lower >= 1:  # several bins: their mean, by the running sum
            high, low = (_at(summed, edge + 0.5) for edge in (upper, lower))
            rows.append((high - low) / (upper - lower))
        else:
            rows.append(_at(power, (upper + lower) / 2))
    return np.maximum(np.stack(rows), 0)


def decibels(power: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """The level of a power; silence is far below what is shown."""
    return 10 * np.log10(power + 1e-14)


def heat(level: Float[np.ndarray, "H W"], loudest: float) -> bytes:
    """Levels in dB as PNG, `DYNAMIC_RANGE` below `loudest`, from black to pale yellow."""
    return _png((level - loudest + DYNAMIC_RANGE) / DYNAMIC_RANGE * 255, _ramp(_HEAT))


def _at(table: np.ndarray, position: float) -> np.ndarray:
    """A row interpolated linearly between two rows."""
    below = int(np.clip(np.floor(position), 0, len(table) - 2))
    share = np.clip(position - below, 0, 1)
    return (1 - share) * table[below] + share * table[below + 1]


def _smoothed(power: np.ndarray, rows: int = 5, columns: int = 9) -> np.ndarray:
    for axis, size in ((0, rows), (1, columns)):
        widths = [(0, 0), (0, 0)]
        widths[axis] = (size // 2 + 1, size // 2)
        sums = np.cumsum(np.pad(power, widths, mode="edge"), axis=axis)
        upper, lower = (np.take(sums, np.arange(i, i + power.shape[axis]), axis=axis) for i in (size, 0))
        power = np.maximum(upper - lower, 0) / size
    return power


def _rgb(text: str) -> list[int]:
    return [int(text[i : i + 2], 16) for i in (0, 2, 4)]


def _ramp(colours: str) -> UInt8[np.ndarray, "256 4"]:
    anchors = np.array([_rgb(colour) for colour in colours.split()], float)
    places = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(places, np.arange(len(anchors)), anchors[:, i]) for i in range(3)]
    return np.stack([*channels, np.full(256, 255.0)], axis=1).round().astype(np.uint8)


def _diverging() -> UInt8[np.ndarray, "256 4"]:
    change = (np.arange(256) - 128) / 127
    colours = np.where(change[:, None] < 0, _rgb(_LOST), _rgb(_ADDED))
    return np.concatenate([colours, 255 * np.abs(np.clip(change, -1, 1))[:, None] ** 1.3], axis=1).astype(
        np.uint8
    )


def _png(values: Float[np.ndarray, "H W"], palette: UInt8[np.ndarray, "256 4"]) -> bytes:
    """An 8-bit palette PNG with transparency; values are palette indices."""
    pixels = np.clip(np.nan_to_num(values), 0, 255).round().astype(np.uint8)
    height, width = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels], axis=1)  # filter type 0 before each row

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            chunk(b"PLTE", palette[:, :3].tobytes()),
            chunk(b"tRNS", palette[:, 3].tobytes()),
            chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)),
            chunk(b"IEND", b""),
        )
    )
