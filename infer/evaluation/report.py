"""`report.html`: one self-contained page with the table, players, pictures and coherence of an evaluation."""

import html
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging

from earvae_jax.borders import explaining, reason, shown
from earvae_jax.errors import UserError
from earvae_jax.infer.evaluation.evaluate import (
    Evaluation,
    PairResult,
    evaluate_model,
    means,
    read_pair,
    write_results,
)
from earvae_jax.infer.evaluation.pairs import Model
from earvae_jax.infer.evaluation.report_file import pair_article
from earvae_jax.system.atomic import replacing

REPORT = "report.html"

# Column heading with an arrow towards better values, key of the metric, unit, format. `true_peak_distance` is
# the paper's dbTP.
COLUMNS = (
    ("Mel ↓", "mel_distance", "", "{:.2f}"),
    ("STFT ↓", "stft_distance", "", "{:.2f}"),
    ("ICPC % ↑", "icpc", "%", "{:.2f}"),
    ("CCPC % ↑", "ccpc", "%", "{:.2f}"),
    ("SI‑SDR dB ↑", "si_sdr", "dB", "{:.2f}"),
    ("dbTP dB ↓", "true_peak_distance", "dB", "{:.2f}"),
)
# Table 1 of arXiv 2509.14912, εar-VAE on two collections, in the order of COLUMNS.
PUBLISHED = (
    ("Paper, MuChin", (0.55, 1.17, 96.78, 96.81, 9.99, 0.05)),
    ("Paper, in-house", (0.55, 1.12, 96.66, 96.52, 11.00, 0.05)),
)


def evaluate_into(
    model: Model, output_dir: str | Path, *, files: int = 12, excerpt_seconds: float = 15.0
) -> Evaluation:
    """Evaluates a model's pairs and writes the results and, unless `files` is 0, the report into a folder.

    `earvae evaluate` and `earvae reconstruct --report` call this; it raises the errors of `write_report` and
    `write_results`.
    """
    evaluation = evaluate_model(model)
    write_results(evaluation, Path(output_dir))
    if files:
        write_report(evaluation, output_dir, files=files, excerpt_seconds=excerpt_seconds)
    done, failed = len(evaluation.results), len(evaluation.failures)
    logging.info("%s: %d evaluated, %d failed -> %s", model.name, done, failed, output_dir)
    return evaluation


def write_report(
    evaluation: Evaluation, output_dir: str | Path, *, files: int = 12, excerpt_seconds: float = 15.0
) -> Path:
    """Writes `report.html`, the page of `report_page`, into a folder and returns its path.

    Raises:
      UserError: the file cannot be written.
    """
    text = report_page(evaluation, files=files, excerpt_seconds=excerpt_seconds)
    path = Path(output_dir) / REPORT
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be written: {reason(error)}") from None
    return path


def report_page(evaluation: Evaluation, *, files: int = 12, excerpt_seconds: float = 15.0) -> str:
    """The report as one page of HTML.

    The table lists all files. The `files` with the lowest SI-SDR have a player and pictures of their loudest
    `excerpt_seconds`. The page loads nothing: it contains audio (FLAC) and pictures.
    """
    worst = sorted(evaluation.results, key=_severity)[:files]
    articles = {}
    for number, result in enumerate(worst, start=1):
        try:
            with explaining(result.pair.reconstruction, "cannot be shown"), np.errstate(all="ignore"):
                audio = read_pair(result.pair)
                anchor = f"file-{number}"
                articles[result.pair.name] = anchor, pair_article(result, audio, anchor, excerpt_seconds)
        except UserError as error:  # the file vanished while others were measured; its row stays
            logging.error("%s: %s", REPORT, error)
    return _page(evaluation, articles)


def _severity(result: PairResult) -> float:
    ratio = result.metrics.values["si_sdr"]
    return float("inf") if ratio is None else ratio


def _page(evaluation: Evaluation, articles: dict[str, tuple[str, str]]) -> str:
    count = len(evaluation.results)
    averages = _columns(_with_mean_peak_distance(evaluation.results))
    seconds = sum(result.seconds for result in evaluation.results)
    facts = f"{count} file{'s' * (count != 1)}, {_duration(seconds)} of audio, compared at 44.1 kHz"
    if 0 < len(articles) < count:
        facts += f"; the {len(articles)} with the lowest SI-SDR can be heard below"
    anchors = {name: anchor for name, (anchor, _) in articles.items()}
    parts = {
        "title": f"Reconstruction report: {html.escape(evaluation.model_name)}",
        "facts": facts,
        "tiles": "".join(_tile(*tile) for tile in zip(COLUMNS, averages, PUBLISHED[0][1], strict=True)),
        "headings": "".join(_heading(label) for label in ("File", *(column[0] for column in COLUMNS))),
        "summary_rows": _row("Mean", averages, "mean")
        + "".join(_row(name, values, "published") for name, values in PUBLISHED),
        "file_rows": "".join(
            _row(result.pair.name, _columns(_with_peak_distance(result)), "", anchors.get(result.pair.name))
            for result in evaluation.results
        ),
        "failures": _failures(evaluation.failures),
        "pairs": "".join(article for _, article in articles.values()),
        "version": importlib.metadata.version("earvae-jax"),
        "style": _asset("report_page.css"),
        "script": _asset("report_page.js"),
    }
    # Split the template first: a file's name or an asset may itself hold what looks like a field.
    pieces = _asset("report_page.html").split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        field, rest = piece.split("}}", 1)
        filled += [parts[field], rest]
    return "".join(filled)


def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _with_peak_distance(result: PairResult) -> dict[str, float | None]:
    difference = result.metrics.values["true_peak_difference"]
    return result.metrics.values | {"true_peak_distance": None if difference is None else abs(difference)}


def _with_mean_peak_distance(results: Sequence[PairResult]) -> dict[str, float | None]:
    averages = means(results)
    difference = averages.get("true_peak_difference")
    return averages | {"true_peak_distance": None if difference is None else abs(difference)}


def _columns(values: dict[str, float | None]) -> list[float | None]:
    """The table's columns, coherences in percent."""
    chosen = [values.get(key) for _, key, _, _ in COLUMNS]
    scales = [100 if unit == "%" else 1 for _, _, unit, _ in COLUMNS]
    return [None if value is None else value * scale for value, scale in zip(chosen, scales, strict=True)]


def _tile(column: tuple[str, str, str, str], value: float | None, published: float) -> str:
    label, _, unit, text = column
    words = '<span class="undefined">–</span>' if value is None else _number(text, value)
    unit = f' <span class="unit">{unit}</span>' if unit else ""
    label = f"{label.split()[0]} {label.split()[-1]}"
    return (
        f'<div class="tile"><dt>{label}</dt><dd class="value">{words}{unit}</dd>'
        f'<dd class="reference">paper {text.format(published)}</dd></div>'
    )


def _number(text: str, value: float) -> str:
    return text.format(value).replace("-", "−")


def _heading(label: str) -> str:
    return f'<th scope="col"><button type="button">{label}</button></th>'


def _row(name: str, values: Sequence[float | None], kind: str, anchor: str | None = None) -> str:
    label = html.escape(name)
    title = f' title="{label}"' if not kind else ""
    linked = f'<a href="#{anchor}">{label}</a>' if anchor else label
    cells = []
    for (_, _, _, text), value in zip(COLUMNS, values, strict=True):
        if value is None:
            cells.append('<td data-value="" class="undefined" title="undefined for this file">–</td>')
        else:
            cells.append(f'<td data-value="{value:.6g}">{_number(text, value)}</td>')
    return f'<tr class="{kind}"><th scope="row"{title}>{linked}</th>{"".join(cells)}</tr>'


def _failures(failures: dict[str, str]) -> str:
    if not failures:
        return ""
    items = "".join(
        f"<li><strong>{html.escape(name)}</strong>: {html.escape(reason)}</li>"
        for name, reason in failures.items()
    )
    return f'<section><h2>Not evaluated</h2><ul class="failures">{items}</ul></section>'


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
    )
