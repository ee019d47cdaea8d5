"""Charts of the report as SVG that takes its colours from the page."""

import itertools
import math

import numpy as np
from jaxtyping import Float

from earvae_jax.infer.evaluation.pictures import HIGHEST_HZ, LOWEST_HZ
from earvae_jax.signal.spectral_metrics import SpectralMetrics

_WIDTH, _HEIGHT = 560, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 10, 10, 24
_BANDS = 96


def frequency_place(hz: float) -> float:
    """Position of a frequency on the logarithmic axis of pictures and charts: 0 at 30 Hz, 1 at 20 kHz."""
    return math.log(hz / LOWEST_HZ) / math.log(HIGHEST_HZ / LOWEST_HZ)


def band_means(
    frequencies: Float[np.ndarray, " F"], curve: Float[np.ndarray, " F"]
) -> list[tuple[float, float | None]]:
    """Centre in Hz and mean of a curve in bands of equal width on the axis; None if it is undefined there."""
    edges = np.geomspace(LOWEST_HZ, min(HIGHEST_HZ, frequencies[-1]), _BANDS + 1)
    means = []
    for low, high in itertools.pairwise(edges):
        centre = math.sqrt(low * high)
        inside = (frequencies >= low) & (frequencies < high)
        # Bands narrower than a bin take the nearest bin.
        values = curve[inside] if inside.any() else curve[[np.argmin(np.abs(frequencies - centre))]]
        values = values[np.isfinite(values)]
        means.append((centre, float(values.mean()) if len(values) else None))
    return means


def coherence_chart(spectra: SpectralMetrics) -> str:
    """Phase coherence over frequency: ICPC, and CCPC for stereo."""
    curves = [("icpc", spectra.icpc_curve)]
    if spectra.ccpc_curve is not None:
        curves.append(("ccpc", spectra.ccpc_curve))
    box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Phase coherence over frequency"'
    parts = [f'<svg class="chart" {box}>']
    for percent in (0, 25, 50, 75, 100):
        y = _y(percent / 100)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{percent}</text>')
    for hz, label in (
        (50, "50"),
        (100, "100"),
        (200, ""),
        (500, "500"),
        (1000, "1k"),
        (2000, ""),
        (5000, "5k"),
        (10000, "10k"),
    ):
        x = _x(hz)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 7}" text-anchor="middle">{label}</text>')
    for name, curve in curves:
        parts.append(f'<path class="{name}" d="{_path(band_means(spectra.frequencies, curve))}"/>')
    return "".join([*parts, "</svg>"])


def _path(points: list[tuple[float, float | None]]) -> str:
    """Straight lines between the points, broken where a value is None."""
    commands, pen_down = [], False
    for hz, value in points:
        if value is not None:
            commands.append(f"{'L' if pen_down else 'M'}{_x(hz):.1f} {_y(value):.1f}")
        pen_down = value is not None
    return " ".join(commands)


def _x(hz: float) -> float:
    return _LEFT + frequency_place(hz) * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float) -> float:
    return _TOP + (1 - value) * (_HEIGHT - _TOP - _BOTTOM)
