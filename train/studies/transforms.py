"""Measures fixed transforms at the codec's rate: `python -m earvae_jax.train.studies.transforms MUSIC…`.

The metrics are those of `earvae evaluate`, at 44.1 kHz. `--learn-from FOLDER` adds the Karhunen-Loève
transform of that music, `--checkpoint` a model, `--reconstructions DIR` what a model made of the same files.
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tqdm
from absl import logging
from jaxtyping import Float

from earvae_jax.audio.channels import to_channels
from earvae_jax.audio.reader import AudioReader, read
from earvae_jax.audio.resampling import resample
from earvae_jax.audio.search import find_audio
from earvae_jax.borders import reason, shown
from earvae_jax.command import run_program
from earvae_jax.errors import UserError
from earvae_jax.flag_types import positive
from earvae_jax.infer import Codec
from earvae_jax.signal.block_transforms import (
    MID,
    SIDE,
    adaptive_dct,
    best_split,
    block_dct,
    klt,
    lapped_dct,
    learn_klt,
    side_ratio,
)
from earvae_jax.signal.metrics import NAMES as METRICS
from earvae_jax.signal.metrics import si_sdr
from earvae_jax.signal.spectral_metrics import measure_spectra
from earvae_jax.system.atomic import replacing
from earvae_jax.system.compilation_cache import enable_compilation_cache
from earvae_jax.system.known_faults import keep_transforms_from_hanging

RATE = 44_100  # Hz, of the published evaluation
_SUFFIX = "_vae_rec"  # which a reconstruction's name may carry
_DCT, _KLT, _MODEL = f"DCT {MID}/{SIDE}", "KLT", "model"

Values = dict[str, float | None]


@dataclasses.dataclass(frozen=True)
class Piece:
    """What was measured on one piece: the metrics of each transform, and the best splits in mid and side."""

    name: str
    seconds: float
    side_db: float | None  # side against mid; None for mono
    splits: dict[str, tuple[int, int]]
    metrics: dict[str, Values]
    side_change: float | None = None  # by how many dB the model changed the side's energy against the mid's


def measure(
    original: Float[np.ndarray, "T C"], reconstruction: Float[np.ndarray, "T C"], sample_rate: int
) -> Values:
    """The five metrics of `earvae_jax.metrics.evaluate_pair` by its names, without loudness; None: undefined.

    Raises:
      ValueError: the shapes differ.
    """
    if original.shape != reconstruction.shape:
        raise ValueError(f"original {original.shape}, reconstruction {reconstruction.shape}")
    spectra = measure_spectra(original, reconstruction, sample_rate)
    values = {"si_sdr": si_sdr(original, reconstruction)}
    values |= {name: getattr(spectra, name) for name in METRICS if name != "si_sdr"}
    return {
        name: value if value is not None and math.isfinite(value) else None for name, value in values.items()
    }


def study(
    name: str,
    audio: Float[np.ndarray, "T C"],
    directions: Float[np.ndarray, "2·block kept"] | None = None,
    reconstruction: Float[np.ndarray, "T C"] | None = None,
) -> Piece:
    """Measures every transform on one piece at 44.1 kHz; mono is transformed as stereo of equal channels."""
    stereo = to_channels(audio, 2)
    splits = {"best DCT": best_split(stereo), "best MDCT": best_split(stereo, lapped=True)}
    transforms: dict[str, Callable[[], np.ndarray]] = {
        _DCT: lambda: block_dct(stereo),
        "DCT, best split": lambda: block_dct(stereo, *splits["best DCT"]),
        "DCT, best split of each block": lambda: adaptive_dct(stereo),
        f"MDCT {MID}/{SIDE}": lambda: lapped_dct(stereo),
        "MDCT, best split": lambda: lapped_dct(stereo, *splits["best MDCT"]),
    }
    if directions is not None:
        transforms[_KLT] = lambda: klt(stereo, directions)
    metrics = {
        kind: measure(audio, to_channels(transform(), audio.shape[1]), RATE)
        for kind, transform in transforms.items()
    }
    sides: list[float | None] = [None, None]
    if reconstruction is not None:
        samples = min(len(audio), len(reconstruction))
        metrics[_MODEL] = measure(audio[:samples], reconstruction[:samples], RATE)
        sides = [side_ratio(to_channels(x[:samples], 2)) for x in (audio, reconstruction)]
    before, after = sides
    change = None if before is None or after is None else after - before
    return Piece(name, len(audio) / RATE, side_ratio(stereo), splits, metrics, change)


def means(pieces: Sequence[Piece]) -> dict[str, Values]:
    """Mean of each metric of each transform over the pieces that have it."""
    result: dict[str, Values] = {}
    for kind in dict.fromkeys(kind for piece in pieces for kind in piece.metrics):
        columns = {name: [p.metrics[kind][name] for p in pieces if kind in p.metrics] for name in METRICS}
        defined = {name: [v for v in values if v is not None] for name, values in columns.items()}
        result[kind] = {name: float(np.mean(values)) if values else None for name, values in defined.items()}
    return result


def table(pieces: Sequence[Piece]) -> str:
    """The SI-SDR of each piece and transform, then the means of all metrics, in Markdown."""
    averages = means(pieces)
    head = ["piece", "s", "side dB", *averages, "best split DCT", "MDCT"]
    lines = ["SI-SDR in dB:", "", _row(head), "|---" * len(head) + "|"]
    for piece in pieces:
        cells = [piece.name, f"{piece.seconds:.1f}", _cell(piece.side_db, "mono", 1)]
        cells += [_cell(piece.metrics.get(kind, {}).get("si_sdr"), digits=2) for kind in averages]
        lines.append(_row([*cells, *(f"{mid}/{side}" for mid, side in piece.splits.values())]))
    count = f"{len(pieces)} piece" + ("s" if len(pieces) != 1 else "")
    lines += ["", f"Means over {count}:", "", _row(["transform", *METRICS.values()]), "|---" * 6 + "|"]
    lines += [_row([kind, *map(_cell, values.values())]) for kind, values in averages.items()]
    lines += ["", _verdict(pieces)] if _MODEL in averages else []
    return "\n".join(lines) + "\n"


def _verdict(pieces: Sequence[Piece]) -> str:
    """On how many pieces the model is far below the transform, or far from the side's energy."""
    pairs = [[p.metrics[kind]["si_sdr"] for kind in (_MODEL, _DCT)] for p in pieces if _MODEL in p.metrics]
    gains = [ours - fixed for ours, fixed in pairs if ours is not None and fixed is not None]
    changes = [piece.side_change for piece in pieces if piece.side_change is not None]
    low, off = sum(gain < -1 for gain in gains), sum(abs(change) > 3 for change in changes)
    return f"""The model is more than 1 dB below {_DCT} on {low} of {len(gains)} pieces, and
changes side against mid by more than 3 dB on {off} of {len(changes)}."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all done, 1 some file failed, 2 the call is wrong."""
    options = _parser().parse_args(arguments)
    keep_transforms_from_hanging()
    enable_compilation_cache()
    try:
        return _run(options)
    except UserError as error:
        logging.error("%s", error)
        return 2


def _run(options: argparse.Namespace) -> int:
    found = find_audio(options.music)
    made = _reconstructions(options.reconstructions) if options.reconstructions else None
    codec = None if options.checkpoint is None else Codec.load(options.checkpoint or None)
    directions = _learn(options.learn_from, options.learn_minutes) if options.learn_from else None
    pieces, failures = [], {}
    interactive = sys.stderr.isatty()
    for path, relative in tqdm.tqdm(found, unit="piece", disable=not interactive):
        name = shown(relative)
        try:
            audio, reconstruction = read_at_rate(path), None
            stretch = middle(len(audio), options.excerpt_seconds)
            if made is not None:
                partner = made.get(relative.with_suffix(""))
                if partner is None:
                    raise UserError(f"{name}: has no reconstruction in {options.reconstructions}")
                reconstruction = read_at_rate(partner)[stretch]
                if reconstruction.shape[1] != audio.shape[1] or not len(reconstruction):
                    raise UserError(f"{shown(partner)}: has other channels than its original or is too short")
            if codec is not None:
                reconstruction = np.asarray(codec.reconstruct(audio[stretch], sample_rate=RATE))
            pieces.append(study(name, audio[stretch], directions, reconstruction))
            if not interactive:
                figures = {kind: values["si_sdr"] for kind, values in pieces[-1].metrics.items()}
                logging.info("%s: %s", name, ", ".join(f"{k} {_cell(v)}" for k, v in figures.items()))
        except UserError as error:
            failures[name] = str(error)
            logging.error("%s", error)
    if not pieces:
        raise UserError("none of the files could be measured")
    sys.stdout.write(table(pieces))
    if options.json:
        _write(options.json, pieces, failures)
    return int(bool(failures))


def read_at_rate(path: Path) -> Float[np.ndarray, "T C"]:
    """A file at 44.1 kHz."""
    audio, rate = read(path)
    audio = resample(audio, rate, RATE) if rate != RATE else audio
    if not len(audio):
        raise UserError(f"{shown(path)}: has no samples left at {RATE} Hz")
    return audio


def middle(samples: int, seconds: float | None) -> slice:
    """The middle part of a file, which is measured."""
    wanted = samples if seconds is None else min(samples, max(1, round(seconds * RATE)))
    start = (samples - wanted) // 2
    return slice(start, start + wanted)


def _reconstructions(folder: Path) -> dict[Path, Path]:
    """The files of a folder by the names of their originals, without endings."""
    made = {}
    for path, relative in find_audio([folder]):
        made[relative.with_suffix("").with_name(relative.stem.removesuffix(_SUFFIX))] = path
    return made


def _learn(folder: Path, minutes: float) -> Float[np.ndarray, "2·block kept"]:
    """The KLT of the music in a folder, learned from the middle of each file, the same fraction of all."""
    lengths = {}
    for path, _ in find_audio([folder]):
        with AudioReader(path) as reader:
            lengths[path] = reader.count() / reader.sample_rate
    share = min(1.0, 60 * minutes / max(sum(lengths.values()), 1e-9))
    logging.info("learning from %.0f minutes of %d files", share * sum(lengths.values()) / 60, len(lengths))

    def piece(path: Path, seconds: float) -> np.ndarray:
        with AudioReader(path) as reader:
            rate = reader.sample_rate
            audio = reader.piece(
                round((1 - share) / 2 * seconds * rate), max(1, round(share * seconds * rate))
            )
        return to_channels(resample(audio, rate, RATE), 2)

    try:
        return learn_klt(piece(path, seconds) for path, seconds in lengths.items())
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from None


def _write(path: Path, pieces: Sequence[Piece], failures: dict[str, str]) -> None:
    content = {"pieces": [*map(dataclasses.asdict, pieces)], "means": means(pieces), "failed_files": failures}
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be written: {reason(error)}") from None


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: float | None, nothing: str = "–", digits: int = 3) -> str:
    return nothing if value is None else f"{value:.{digits}f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m earvae_jax.train.studies.transforms",
        description="Measures fixed transforms at the codec's rate on music.",
        allow_abbrev=False,
    )
    parser.add_argument("music", nargs="+", type=Path, metavar="MUSIC", help="files and folders")
    parser.add_argument("--learn-from", type=Path, metavar="FOLDER", help="music to learn the KLT from")
    parser.add_argument(
        "--learn-minutes",
        type=positive(float),
        default=60.0,
        metavar="MIN",
        help="how much of that music; default: 60",
    )
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "--reconstructions", type=Path, metavar="DIR", help="reconstructions under the same relative names"
    )
    model.add_argument(
        "--checkpoint", nargs="?", const="", metavar="PATH", help="a model; without PATH the bundled one"
    )
    parser.add_argument(
        "--excerpt-seconds",
        type=positive(float),
        metavar="S",
        help="middle of each piece; default: all of it",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="file for all figures")
    return parser


if __name__ == "__main__":
    run_program(main)
