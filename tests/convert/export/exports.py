"""Models to export, and the answers of `Codec` that a process without this package must give."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import family
import numpy as np
import pages
from places import ROOT

from earvae_jax import checkpoints
from earvae_jax.infer import Codec

FAMILY = "diffusers_acestep_tiny"


def program(words: str) -> str:
    """The Python block of docs/export.md that holds these words."""
    blocks = pages.Page(ROOT / "docs" / "export.md").blocks
    (found,) = (block.text for block in blocks if block.language == "python" and words in block.text)
    return found


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, and audio and latents of one length with what the codec makes of them."""

    model: object
    audio: np.ndarray  # [T, C]
    latents: np.ndarray  # [N, D], before the transformer
    answers: dict[str, np.ndarray]

    def lay(self, folder: Path, *, channels_first: bool) -> None:
        """Where the fresh process finds what it is given."""
        given = {"audio": self.audio, "latents": self.latents}
        values = {name: (value.T if channels_first else value)[None] for name, value in given.items()}
        np.savez(folder / "given.npz", **values)

    def distances(self, folder: Path, *, channels_first: bool) -> dict[str, float]:
        """Of the fresh process's answers, relative to the larger of 1 and each answer's peak."""
        found = np.load(folder / "answers.npz")
        distances = {}
        for name, expected in self.answers.items():
            answer = found[name][0].T if channels_first else found[name][0]
            assert answer.shape == expected.shape
            distances[name] = float(np.max(np.abs(answer - expected)) / max(1, np.max(np.abs(expected))))
        return distances


def case(model, latents: int = 24) -> Case:
    """Noise of so many latents.

    The codec's window is as long as the file: XLA rounds each length differently, and a family model's own
    rounding (4e-6 from float64) would hide what an export does wrong.
    """
    codec, config = Codec(model, window_sizes=(latents,)), model.config
    random = np.random.default_rng(latents)
    shape = (latents * config.downsampling_ratio, config.io_channels)
    audio = (0.2 * random.standard_normal(shape)).astype(np.float32)
    encoded = codec.encode(audio)
    answers = {"mean": encoded.mean, "std": encoded.std, "audio": codec.decode(encoded.mean)}
    return Case(model, audio, encoded.mean, answers)


def run_without_this_package(text: str, folders: list[Path], tmp_path: Path) -> None:
    """Runs a program in a fresh process that cannot import this package."""
    script = tmp_path / "program.py"
    script.write_text(text)
    words = [sys.executable, Path(__file__).with_name("fresh_process.py"), script, *folders]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def model(name: str, models):
    """The bundled one, `FAMILY`, or one of the recordings; `models` are those of the recordings."""
    if name == "bundled":
        return checkpoints.load()
    return family.model(name) if name == FAMILY else models[name]
