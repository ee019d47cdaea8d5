"""`summary.html`: one self-contained page about a run, with its curves, warnings, songs and config."""

import html
import json
import string
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

from absl import logging

from earvae_jax.borders import reason
from earvae_jax.signal.metrics import NAMES
from earvae_jax.system.atomic import replacing
from earvae_jax.train.config import TrainConfig
from earvae_jax.train.step.schedules import milestones
from earvae_jax.train.watch.history import Curves

SUMMARY = "summary.html"

# Headings of the groups of curves, in their order on the page.
_GROUPS = {
    "validation": "Held-out crops",
    "gain_over_transform": "Gain over a cosine transform of the same rate (above 0: better)",
    "songs": "Whole songs",
    "health": "Latents and side signal",
    "train": "Training",
    "pull": "How strongly each term pulls at the reconstruction",
    "skipped": "Skipped",
}
_POINTS = 400  # of a curve; more would not be seen
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 240, 110, 52, 14


def write_summary(
    path: Path,
    config: TrainConfig,
    curves: Curves,
    *,
    step: int,
    warnings: Sequence[str] = (),
    songs: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Writes the page whole or not at all; a failing disk costs only the page, with a warning."""
    parts = []
    if warnings:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in warnings)
        parts.append(f'<h2>Warnings</h2><ul class="warnings">{lines}</ul>')
    for group, heading in _GROUPS.items():
        found = {
            name.removeprefix(f"{group}/"): points
            for name, points in sorted(curves.items())
            if name.startswith(f"{group}/")
        }
        metrics = {NAMES[name]: found.pop(name) for name in NAMES if name in found}
        others = {name.replace("_", " "): points for name, points in found.items()}
        charts = [_chart(title, points) for title, points in (metrics | others).items()]
        if charts:
            parts.append(f'<h2>{heading}</h2><div class="charts">{"".join(charts)}</div>')
    if songs:
        rows = [[name, *(_number(values.get(key)) for key in NAMES)] for name, values in songs.items()]
        parts.append(f"<h2>Songs at the last measurement</h2>{_table(['song', *NAMES.values()], rows)}")
    parts.append(f"<h2>Schedules</h2>{_schedules(config)}")
    parts.append(f"<h2>Config</h2><pre>{html.escape(json.dumps(config.to_dict(), indent=2))}</pre>")
    page = string.Template(
        resources.files("earvae_jax.train.watch").joinpath("summary.html").read_text(encoding="utf-8")
    ).substitute(
        title=html.escape(f"Run {path.parent.resolve().name}"),
        facts=f"step {step} of {config.steps}",
        body="\n".join(parts),
    )
    try:
        with replacing(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        logging.warning("%s: cannot be written: %s; training goes on", path, reason(error))


def _schedules(config: TrainConfig) -> str:
    found = list(milestones(config))
    names = list(dict.fromkeys(name for _, values in found for name in values))
    rows = [[str(step), *(_number(values.get(name)) for name in names)] for step, values in found]
    return _table(["step", *(name.replace("_", " ") for name in names)], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cells(values: Sequence[str]) -> str:
        return "".join(f"<th>{html.escape(value)}</th>" for value in values)

    body = "".join(f"<tr>{cells(row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{cells(head)}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _chart(title: str, points: Sequence[tuple[int, float]]) -> str:
    """A curve with its lowest and highest value at the side, its last one in the caption."""
    thinned = list(_thinned(points))
    first, last = points[0][0], points[-1][0]
    low, high = (limit(value for _, value in thinned) for limit in (min, max))
    floor = _HEIGHT - _BOTTOM
    places = " ".join(
        f"{_between(step, first, last, _LEFT, _WIDTH):.1f},{_between(value, high, low, 4, floor):.1f}"
        for step, value in thinned
    )
    marks = [(4, 11, high), (floor, floor, low)]
    lines = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{at}" y2="{at}"/>'
        f'<text x="{_LEFT - 4}" y="{text_at}" text-anchor="end">{value:.3g}</text>'
        for at, text_at, value in marks
    )
    ends = (
        f'<text x="{_LEFT}" y="{_HEIGHT - 2}">{first}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 2}" text-anchor="end">{last}</text>'
    )
    title = html.escape(title)
    return (
        f"<figure><figcaption><span>{title}</span><b>{_number(points[-1][1])}</b></figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title} over steps">'
        f'{lines}{ends}<polyline points="{places}"/></svg></figure>'
    )


def _thinned(points: Sequence[tuple[int, float]]) -> Iterator[tuple[int, float]]:
    """Means of neighbours, if there are more points than can be seen."""
    size = -(-len(points) // _POINTS)
    for start in range(0, len(points), size):
        part = points[start : start + size]
        yield part[-1][0], sum(value for _, value in part) / len(part)


def _between(value: float, at_start: float, at_end: float, start: float, end: float) -> float:
    if at_start == at_end:
        return (start + end) / 2
    return start + (value - at_start) / (at_end - at_start) * (end - start)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
