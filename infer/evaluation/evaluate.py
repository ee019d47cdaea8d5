"""Evaluates pairs of files as published and writes the results."""

import csv
import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tqdm
from absl import logging
from jaxtyping import Float

from earvae_jax.audio.reader import read
from earvae_jax.audio.resampling import resample
from earvae_jax.borders import explaining, reason, shown
from earvae_jax.errors import UserError
from earvae_jax.infer.evaluation.pairs import Model, Pair
from earvae_jax.signal.metrics import PairMetrics, measure_pair
from earvae_jax.system.atomic import replacing

RATE = 44_100  # Hz; the published evaluation resamples everything to it

RESULTS, SUMMARY, TABLE = "evaluation_results.json", "evaluation_summary.txt", "evaluation_files.csv"

# Keys of the published evaluation_results.json, and the metrics of `evaluate_pair` that they stand for.
_PUBLISHED_NAMES = {
    "avg_sisdr": "si_sdr",
    "avg_mel_distance": "mel_distance",
    "avg_stft_distance": "stft_distance",
    "avg_per_channel_coherence": "icpc",
    "avg_interchannel_coherence": "ccpc",
    "avg_gen_lufs-i": "lufs",
    "avg_gen_lra": "lra",
    "avg_gen_true_peak": "true_peak",
    "avg_gt_lufs-i": "original_lufs",
    "avg_gt_lra": "original_lra",
    "avg_gt_true_peak": "original_true_peak",
}


@dataclasses.dataclass(frozen=True)
class PairAudio:
    """A pair read for comparison: the same rate, channels and length."""

    original: Float[np.ndarray, "T C"]
    reconstruction: Float[np.ndarray, "T C"]
    notes: list[str]  # what had to be done to make them comparable


@dataclasses.dataclass(frozen=True)
class PairResult:
    """What was measured on one pair."""

    pair: Pair
    metrics: PairMetrics
    seconds: float
    channels: int
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Results of one model, and the reason for each file without a result, by name."""

    model_name: str
    results: list[PairResult]
    failures: dict[str, str]


def read_pair(pair: Pair) -> PairAudio:
    """Reads both sides at 44.1 kHz, trimmed to the shorter.

    Raises:
      UserError: a file that cannot be read, or different channel counts.
    """
    notes, sides = [], []
    for side, path in (("original", pair.original), ("reconstruction", pair.reconstruction)):
        faults: list[str] = []
        audio, rate = read(path, tell=faults.append)
        notes += [f"{side} {fault.removeprefix(f'{shown(path)}: ')}" for fault in faults]
        if rate != RATE:
            audio = resample(audio, rate, RATE)
            notes.append(f"{side} resampled from {rate} Hz")
        sides.append(audio)
    original, reconstruction = sides
    if original.shape[1] != reconstruction.shape[1]:
        raise UserError(
            f"{shown(pair.reconstruction)}: has {_channels(reconstruction)}, "
            f"but its original has {_channels(original)}"
        )
    excess = len(original) - len(reconstruction)
    if excess:
        shorter = min(len(original), len(reconstruction))
        longer = "original" if excess > 0 else "reconstruction"
        notes.append(f"{longer} trimmed by {abs(excess)} samples to {shorter / RATE:.2f} s")
        original, reconstruction = original[:shorter], reconstruction[:shorter]
    if not len(original):
        raise UserError(f"{shown(pair.reconstruction)}: has no samples left at {RATE} Hz")
    return PairAudio(original, reconstruction, notes)


def _channels(audio: np.ndarray) -> str:
    return "1 channel" if audio.shape[1] == 1 else f"{audio.shape[1]} channels"


def evaluate_model(model: Model) -> Evaluation:
    """Measures every pair of a model; logs and records the files that cannot be measured, with the reason."""
    results, failures = [], dict(model.unpaired)
    for name, why in failures.items():
        logging.error("%s: %s", shown(model.folder / name), why)
    interactive = sys.stderr.isatty()
    for pair in tqdm.tqdm(model.pairs, desc=model.name, unit="file", disable=not interactive):
        try:
            result = evaluate_files(pair)
        except UserError as error:
            failures[pair.name] = str(error)
            logging.error("%s", error)
            continue
        for note in result.notes:
            logging.info("%s: %s", pair.name, note)
        results.append(result)
        if not interactive:
            logging.info("%s: %s", pair.name, one_line(result.metrics.values))
    return Evaluation(model.name, results, failures)


def evaluate_files(pair: Pair) -> PairResult:
    """Measures one pair; raises the errors of `read_pair`."""
    audio = read_pair(pair)
    compared = explaining(pair.reconstruction, "cannot be compared with its original")
    with compared, np.errstate(all="ignore"):  # a metric that overflows is undefined
        metrics = measure_pair(audio.original, audio.reconstruction, RATE)
    samples, channels = audio.original.shape
    return PairResult(pair, metrics, samples / RATE, channels, audio.notes)


def one_line(values: dict[str, float | None]) -> str:
    """The columns of the paper's table as a line of text."""
    shown = (
        ("SI-SDR", "si_sdr", "{:.2f} dB"),
        ("mel", "mel_distance", "{:.3f}"),
        ("STFT", "stft_distance", "{:.3f}"),
        ("ICPC", "icpc", "{:.2%}"),
        ("CCPC", "ccpc", "{:.2%}"),
        ("true peak difference", "true_peak_difference", "{:+.2f} dB"),
    )
    return ", ".join(
        f"{label} {'undefined' if values[key] is None else text.format(values[key])}"
        for label, key, text in shown
    )


def means(results: Sequence[PairResult]) -> dict[str, float | None]:
    """Mean of each metric over the files that have it."""
    names = results[0].metrics.values if results else ()
    columns = {name: [r.metrics.values[name] for r in results] for name in names}
    defined = {name: [value for value in column if value is not None] for name, column in columns.items()}
    return {name: float(np.mean(column)) if column else None for name, column in defined.items()}


def write_results(evaluation: Evaluation, output_dir: Path) -> None:
    """Writes the published JSON and text summaries and a CSV with a row for each file.

    The JSON has the published keys. A metric that no file has is null, and `failed_files` names the files
    that could not be evaluated.
    """
    averages = means(evaluation.results)
    summary = {"model_name": evaluation.model_name, "file_count": len(evaluation.results)}
    summary |= {published: averages.get(name) for published, name in _PUBLISHED_NAMES.items()}
    full = summary | {"failed_files": evaluation.failures}
    _write(output_dir / RESULTS, json.dumps(full, indent=4, allow_nan=False, ensure_ascii=False) + "\n")
    lines = [f"{key}: {'undefined' if value is None else value}" for key, value in summary.items()]
    lines += [f"failed: {name}: {why}" for name, why in evaluation.failures.items()]
    _write(output_dir / SUMMARY, "\n".join(lines) + "\n")
    _write(output_dir / TABLE, _table(evaluation))


def _table(evaluation: Evaluation) -> str:
    text = io.StringIO()
    names = list(averages) if (averages := means(evaluation.results)) else []
    writer = csv.writer(text)
    writer.writerow(["name", "seconds", "channels", *names, "notes", "error"])
    for result in evaluation.results:
        values = [result.metrics.values[name] for name in names]
        row = [result.pair.name, f"{result.seconds:.3f}", result.channels, *values]
        writer.writerow([*("" if cell is None else cell for cell in row), "; ".join(result.notes), ""])
    for name, why in evaluation.failures.items():
        writer.writerow([name, "", "", *[""] * len(names), "", why])
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be written: {reason(error)}") from None
