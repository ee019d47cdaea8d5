"""Puts a run's model and a clip into the package: `python -m earvae_jax.train.studies.make_demo RUN`.

The model is stored as bfloat16, half its size. The clip is synthetic music that no run with an even seed
trains on.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from earvae_jax import checkpoints, demo
from earvae_jax.audio.writer import write
from earvae_jax.command import run_program
from earvae_jax.errors import UserError
from earvae_jax.train.data import synthetic

_CLIP_SECONDS = 6
_CLIP = (1, 10)  # the data set that seed 0 validates on, and a piece of it with about average results


def make_demo(workdir: Path) -> None:
    """Writes `demo.MODEL` and `demo.CLIP` from `workdir/model.safetensors`."""
    model, info = checkpoints.load_with_info(workdir / "model.safetensors")
    provenance = info.provenance
    checkpoints.save(demo.MODEL, model, provenance=provenance, dtype="bfloat16", overwrite=True)
    rate = model.config.sample_rate
    if rate is None:
        raise UserError("the model's config does not say its sample rate")
    clip = synthetic.render(*_CLIP, samples=_CLIP_SECONDS * rate, sample_rate=rate)
    write(demo.CLIP, clip, rate, format="flac")
    for path in (demo.MODEL, demo.CLIP):
        logging.info("%s: %.1f MB", path, path.stat().st_size / 1e6)


def main(words: Sequence[str] | None = None) -> None:
    """Writes model and clip."""
    parser = argparse.ArgumentParser(prog="python -m earvae_jax.train.studies.make_demo", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="the workdir of a finished run")
    make_demo(parser.parse_args(words).run)


if __name__ == "__main__":
    run_program(main)
