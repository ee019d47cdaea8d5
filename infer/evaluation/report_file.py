"""One file of the report: player, spectrograms, coherence, stereo fields and levels of a pair."""

import base64
import html
import io

import numpy as np
import soundfile
from jaxtyping import Float

from earvae_jax.infer.evaluation import pictures
from earvae_jax.infer.evaluation.charts import coherence_chart, frequency_place
from earvae_jax.infer.evaluation.evaluate import RATE, PairAudio, PairResult

_SIDES = ("original", "reconstruction", "difference")
_PLAY = '<svg class="start" viewBox="0 0 24 24"><path d="M7 4l14 8-14 8z"/></svg>'
_PAUSE = '<svg class="pause" viewBox="0 0 24 24"><path d="M6 4h4v16H6zM14 4h4v16h-4z"/></svg>'


def pair_article(result: PairResult, audio: PairAudio, anchor: str, excerpt_seconds: float) -> str:
    """The HTML of one pair."""
    start, stop = loudest_stretch(audio.original, round(excerpt_seconds * RATE))
    original, reconstruction = audio.original[start:stop], audio.reconstruction[start:stop]
    facts = [f"{_time(result.seconds)}, {'stereo' if result.channels == 2 else 'mono'}", *result.notes]
    if stop - start < len(audio.original):
        facts.append(f"shown and played: {_time(start / RATE)} to {_time(stop / RATE)}, the loudest part")
    peak = max(np.abs(original).max(), np.abs(reconstruction).max())
    gain = min(1.0, 1 / peak) if peak > 0 else 1.0
    if gain < 1:
        facts.append(
            f"both are played {-20 * np.log10(gain):.1f} dB softer, so that the louder one does not clip"
        )
    match = result.metrics.values["lufs_difference"] or 0.0
    audio_elements = "".join(
        f'<script type="text/plain" data-audio="{side}">{_base64(_flac(gain * samples))}</script>'
        for side, samples in (("original", original), ("reconstruction", reconstruction))
    )
    return (
        f'<article class="pair" id="{anchor}" data-state="stopped" data-side="original" '
        f'data-seconds="{(stop - start) / RATE:.4f}" data-match="{match:.2f}">'
        f"<h2>{html.escape(result.pair.name)}</h2>"
        f'<p class="facts">{html.escape("; ".join(facts))}</p>'
        f"{_transport()}{_spectrograms(original, reconstruction)}"
        f'<div class="pictures"><div><h3>Phase coherence over frequency, % at Hz</h3>'
        f"{coherence_chart(result.metrics.spectra)}{_coherence_legend(result)}</div>"
        f"<div>{_fields(original, reconstruction)}</div></div>"
        f"{_levels(result.metrics.values)}{audio_elements}</article>"
    )


def loudest_stretch(audio: Float[np.ndarray, "T C"], samples: int) -> tuple[int, int]:
    """Start and end of the `samples` with the most energy, on a grid of 0.1 s; a shorter recording whole."""
    if len(audio) <= samples:
        return 0, len(audio)
    energy = np.concatenate([[0], np.cumsum(np.sum(np.square(audio, dtype=np.float64), axis=1))])
    starts = np.arange(0, len(audio) - samples + 1, RATE // 10)
    start = int(starts[np.argmax(energy[starts + samples] - energy[starts])])
    return start, start + samples


def _transport() -> str:
    buttons = "".join(
        f'<button type="button" data-side="{side}" aria-pressed="false">{side.capitalize()}</button>'
        for side in _SIDES
    )
    return (
        '<div class="transport"><button type="button" class="play" aria-label="Play or pause">'
        f"{_PLAY}{_PAUSE}</button>"
        f'<div class="sides" role="group" aria-label="What is heard">{buttons}</div>'
        '<span class="time"></span>'
        '<label><input type="checkbox" class="loop" checked> loop</label>'
        '<label title="Plays the reconstruction at the original\'s integrated loudness">'
        '<input type="checkbox" class="match"> match loudness</label>'
        '<span class="trouble failures"></span></div>'
    )


def _spectrograms(original: np.ndarray, reconstruction: np.ndarray) -> str:
    drawn = pictures.spectrograms(original, reconstruction, RATE)
    strips = [
        _strip("Original", "original", drawn.original),
        _strip("Reconstruction", "reconstruction", drawn.reconstruction),
        _strip("Difference", "difference", drawn.difference),
        _strip("Change of level", "change", drawn.change),
    ]
    top, bottom = (_minus(f"{drawn.loudest - down:.0f}") for down in (0, pictures.DYNAMIC_RANGE))
    change = pictures.LARGEST_DIFFERENCE
    return (
        f'<div class="strips">{"".join(strips)}<div class="head"></div></div>'
        '<input type="range" class="seek" min="0" max="1" step="0.0001" value="0" aria-label="Position">'
        f'<p class="legend"><span>{bottom} <span class="bar heat"></span> {top} dB</span>'
        f'<span>softer −{change:.0f} <span class="bar shift"></span> +{change:.0f} dB louder</span></p>'
    )


def _strip(label: str, side: str, picture: bytes) -> str:
    ticks = "".join(
        f'<i style="bottom:{100 * frequency_place(hz):.1f}%">{text}</i>'
        for hz, text in ((100, "100 Hz"), (1000, "1 kHz"), (10_000, "10 kHz"))
    )
    kind = "strip change" if side == "change" else "strip"
    return (
        f'<figure class="{kind}" data-side="{side}"><img alt="Spectrogram: {label.lower()}" '
        f'src="data:image/png;base64,{_base64(picture)}">{ticks}<figcaption>{label}</figcaption></figure>'
    )


def _coherence_legend(result: PairResult) -> str:
    names = {"icpc": "ICPC, within a channel", "ccpc": "CCPC, between left and right"}
    values = result.metrics.values
    keys = [
        f'<span class="key {key}">{name}: {values[key]:.2%}</span>'
        for key, name in names.items()
        if values[key] is not None
    ]
    return f'<p class="legend">{"".join(keys) or "undefined: one of the two is silent or too short"}</p>'


def _fields(original: np.ndarray, reconstruction: np.ndarray) -> str:
    if original.shape[1] == 1:
        return '<h3>Stereo field</h3><p class="legend">The recording is mono.</p>'
    scale = float(max(np.abs(original).max(), np.abs(reconstruction).max()))
    figures = []
    for side, audio in (("original", original), ("reconstruction", reconstruction)):
        picture = f"url(data:image/png;base64,{_base64(pictures.stereo_field(audio, scale))})"
        figures.append(
            f'<figure class="field" data-side="{side}" style="--picture:{picture}">'
            '<div class="scope"><div class="dots"></div><b style="top:5px;left:6px">L</b>'
            '<b style="top:5px;right:6px">R</b></div>'
            f"<figcaption><strong>{side.capitalize()}</strong><br>{_stereo_figures(audio)}</figcaption></figure>"
        )
    return f'<h3>Stereo field</h3><div class="fields">{"".join(figures)}</div>'


def _stereo_figures(audio: np.ndarray) -> str:
    left, right = audio.T.astype(np.float64)
    energy = np.sqrt((left @ left) * (right @ right))
    mid, side = np.sum((left + right) ** 2), np.sum((left - right) ** 2)
    correlation = f"correlation {left @ right / energy:+.2f}" if energy > 0 else "correlation undefined"
    width = (
        f"side {10 * np.log10(side / mid):+.1f} dB of mid" if mid > 0 and side > 0 else "no side or no mid"
    )
    return _minus(f"{correlation}<br>{width}")


def _levels(values: dict[str, float | None]) -> str:
    rows = []
    for label, key, unit in (
        ("Integrated loudness", "lufs", "LUFS"),
        ("Loudness range", "lra", "LU"),
        ("True peak", "true_peak", "dBTP"),
    ):
        cells = [_level(values[f"original_{key}"], "{:.1f}"), _level(values[key], "{:.1f}")]
        cells.append(_level(values[f"{key}_difference"], "{:+.2f}"))
        row = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{label}, {unit}</th>{row}</tr>')
    headings = "<th></th><th>Original</th><th>Reconstruction</th><th>Change</th>"
    return f'<table class="levels"><thead><tr>{headings}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _level(value: float | None, text: str) -> str:
    return "–" if value is None else _minus(text.format(value))


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _flac(audio: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    soundfile.write(encoded, np.clip(audio, -1, 1), RATE, format="FLAC", subtype="PCM_16")
    return encoded.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _time(seconds: float) -> str:
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"
