"""Puts a run's model and a clip into the package: `python -m earvae_jax.train.studies.make_demo RUN`.

The model is stored as bfloat16, half its size. Its provenance names the music by package and licence, from
the manifest of `--music`, instead of folders of this machine. The clip is synthetic music that no run with an
even seed trains on.
"""

import argparse
import copy
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from earvae_jax import checkpoints, demo
from earvae_jax.audio.writer import write
from earvae_jax.borders import read_json, shown
from earvae_jax.command import run_program
from earvae_jax.errors import UserError
from earvae_jax.train.data import synthetic

_CLIP_SECONDS = 6
_CLIP = (1, 10)  # the data set that seed 0 validates on, and a piece of it with about average results


def make_demo(workdir: Path, music: Path | None, commit: str) -> None:
    """Writes `demo.MODEL` and `demo.CLIP` from `workdir/model.safetensors`.

    Args:
      music: what `earvae_jax.train.free_music` fetched; None for a run on synthetic music alone.
      commit: of the code that trained.

    Raises:
      UserError: the run used music outside `music`, or there is no model or no manifest.
    """
    model, info = checkpoints.load_with_info(workdir / "model.safetensors")
    provenance = {**described(info.provenance, music), "commit": commit}
    checkpoints.save(demo.MODEL, model, provenance=provenance, dtype="bfloat16", overwrite=True)
    rate = model.config.sample_rate
    if rate is None:
        raise UserError("the model's config does not say its sample rate")
    clip = synthetic.render(*_CLIP, samples=_CLIP_SECONDS * rate, sample_rate=rate)
    write(demo.CLIP, clip, rate, format="flac")
    for path in (demo.MODEL, demo.CLIP):
        logging.info("%s: %.1f MB", path, path.stat().st_size / 1e6)


def described(provenance: Mapping[str, Any], music: Path | None) -> dict[str, Any]:
    """The provenance with folders relative to `music`, and the packages that were trained on.

    Raises:
      UserError: a folder lies elsewhere.
    """
    described = copy.deepcopy(dict(provenance))
    data = described["training_config"]["data"]
    for key in ("train", "validation", "songs"):
        data[key] = [_relative(place, music, key) for place in data.get(key, ())]
    described["data"] = []
    if music is not None and data["train"]:
        manifest = read_json(music / "manifest.json", "manifest")
        described["data"] = [
            {
                "package": package["package"],
                "version": package["version"],
                "hours": package["hours"],
                "licences": sorted(
                    {each["licence"] for each in manifest["files"] if each["package"] == package["package"]}
                ),
            }
            for package in manifest["packages"]
            if package["split"] in data["train"]
        ]
    return described


def _relative(place: str, music: Path | None, key: str) -> str:
    path = Path(place).expanduser().resolve()
    if music is None or not path.is_relative_to(music.resolve()):
        raise UserError(f"data.{key}: {shown(place)} is not in --music; the package must not name it")
    return path.relative_to(music.resolve()).as_posix()


def main(words: Sequence[str] | None = None) -> None:
    """Writes model and clip."""
    parser = argparse.ArgumentParser(prog="python -m earvae_jax.train.studies.make_demo", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="the workdir of a finished run")
    parser.add_argument("--music", type=Path, metavar="FOLDER", help="the free music that it trained on")
    parser.add_argument("--commit", help="of the code that trained; default: the checkout's")
    asked = parser.parse_args(words)
    make_demo(asked.run, asked.music, asked.commit or _checkout())


def _checkout() -> str:
    words = ["git", "rev-parse", "HEAD"]
    found = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    if found.returncode:
        raise UserError("this is no checkout: say the commit with --commit")
    return found.stdout.strip()


if __name__ == "__main__":
    run_program(main)
