"""Measures where models and fixed transforms err: `python -m earvae_jax.train.studies.bands MUSIC…`.

For each it prints the energy of the error against that of the signal, in dB, in bands of mid and side: 0
where a band is left out. Means over the middles of the pieces. `--checkpoint` takes any number of models.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tqdm
from jaxtyping import Float
from scipy import signal

from earvae_jax.audio.channels import to_channels
from earvae_jax.audio.search import find_audio
from earvae_jax.command import run_program
from earvae_jax.infer import Codec
from earvae_jax.signal.block_transforms import MID, SIDE, best_split, block_dct
from earvae_jax.train.studies.transforms import RATE, middle, read_at_rate

EDGES = (0, 200, 1000, 4000, RATE // 2)  # Hz
_FINE = (0, 200, 500, 1000, 1400, 2000, 4000, 8000, RATE // 2)
_SILENT = 1e-20  # energy beside which none counts


def band_errors(
    originals: Float[np.ndarray, "*some T 2"],
    reconstructions: Float[np.ndarray, "*some T 2"],
    sample_rate: int,
    edges: Sequence[int] = EDGES,
) -> dict[str, float]:
    """Energy of the error relative to the signal's in dB, in bands of mid and side, over everything."""
    found = {}
    for place, sign in (("mid", 1), ("side", -1)):
        wanted, made = (x[..., 0] + sign * x[..., 1] for x in (originals, reconstructions))
        options = {"fs": sample_rate, "nperseg": min(2048, wanted.shape[-1]), "axis": -1}
        frequencies, of_error = signal.welch(made - wanted, **options)
        _, of_signal = signal.welch(wanted, **options)
        for low, high in itertools.pairwise(edges):
            inside = (frequencies >= low) & (frequencies < high)
            error, energy = (x[..., inside].sum() + _SILENT for x in (of_error, of_signal))
            found[f"{place} {low}–{high}"] = float(10 * np.log10(error / energy))
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m earvae_jax.train.studies.bands", description=__doc__)
    parser.add_argument("music", nargs="+", type=Path, metavar="MUSIC", help="files and folders")
    parser.add_argument(
        "--checkpoint", nargs="*", default=[None], metavar="MODEL", help="models; default: the demo model"
    )
    parser.add_argument("--excerpt-seconds", type=float, default=5.8, help="of each piece; default: 5.8")
    asked = parser.parse_args(words)
    kinds: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        f"DCT {MID}/{SIDE}": block_dct,
        "DCT, best split": lambda audio: block_dct(audio, *best_split(audio)),
    }
    for path in asked.checkpoint:
        kinds[path or "demo model"] = _by_model(path)
    errors: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    bands: list[str] = []
    for path, _ in tqdm.tqdm(find_audio(asked.music), unit="piece", disable=not sys.stderr.isatty()):
        audio = read_at_rate(path)
        audio = to_channels(audio[middle(len(audio), asked.excerpt_seconds)], 2)
        for kind, reconstruct in kinds.items():
            found = band_errors(audio, reconstruct(audio), RATE, _FINE)
            errors[kind].append(list(found.values()))
            bands = list(found)
    sys.stdout.write(f"| error, dB | {' | '.join(bands)} |\n{'|---' * (len(bands) + 1)}|\n")
    for kind, rows in errors.items():
        # Mono has no side, and a band without sound no error that would mean anything.
        heard = np.ma.masked_outside(rows, -100, 30)
        cells = [f"{value:.1f}" for value in heard.mean(axis=0)]
        sys.stdout.write(f"| {kind} | {' | '.join(cells)} |\n")


def _by_model(path: str | None) -> Callable[[np.ndarray], np.ndarray]:
    codec = Codec.load(path)
    return lambda audio: np.asarray(codec.reconstruct(audio, sample_rate=RATE))


if __name__ == "__main__":
    run_program(main)
