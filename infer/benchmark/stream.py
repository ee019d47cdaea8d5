"""Measures streams: `python -m earvae_jax.infer.benchmark.stream [SONG] [--checkpoint MODEL]`.

For several blocks, and for several lengths that a transformer sees, it tells the latency, the speed, and how
far the result is from that of the whole file: signal to difference in dB, and the largest difference as a
part of the peak. One turn of each, after one that compiles.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from earvae_jax import demo
from earvae_jax.audio.channels import to_channels
from earvae_jax.audio.reader import read
from earvae_jax.audio.resampling import resample
from earvae_jax.command import run_program
from earvae_jax.flag_types import positive
from earvae_jax.infer.codec import Codec
from earvae_jax.system import machine

_SEEN = ((64, 0), (256, 0), (256, 8), (256, 64))  # past and future, in latents
_BLOCKS = (2, 8, 32)  # latents
_COLUMNS = (
    "block",
    "past",
    "future",
    "latency s",
    "× real time",
    "signal / difference dB",
    "largest difference",
)


def main(words: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m earvae_jax.infer.benchmark.stream", description=__doc__)
    parser.add_argument("song", nargs="?", type=Path, default=demo.CLIP, help="default: the bundled clip")
    parser.add_argument("--checkpoint", metavar="MODEL", help="default: the demo model")
    parser.add_argument("--seconds", type=positive(float), default=30.0, help="of the song; default: 30")
    parser.add_argument("--blocks", nargs="+", type=positive(int), default=_BLOCKS, metavar="LATENTS")
    asked = parser.parse_args(words)
    codec = Codec.load(asked.checkpoint)
    audio, rate = read(asked.song)
    audio = to_channels(audio[: int(asked.seconds * rate)], codec.config.io_channels)
    audio = np.asarray(resample(audio, rate, codec.sample_rate), np.float32)
    about = ", ".join(f"{what} {value}" for what, value in machine.describe().items())
    sys.stdout.write(f"{asked.song.name}, {len(audio) / codec.sample_rate:.1f} s, float32\n{about}\n\n")
    sys.stdout.write("| " + " | ".join(_COLUMNS) + " |\n" + "|---" * len(_COLUMNS) + "|\n")
    for cells in rows(codec, audio, asked.blocks):
        sys.stdout.write("| " + " | ".join(cells) + " |\n")
        sys.stdout.flush()


def rows(codec: Codec, audio: Float[np.ndarray, "T C"], blocks: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """The cells of the table."""
    whole = np.asarray(codec.reconstruct(audio), np.float64)
    seen = _SEEN if codec.config.transformer is not None else ((0, 0),)
    for block in blocks:
        for past, future in seen:
            stream = codec.stream(block=block, past=past, future=future)
            _fed(codec, audio, block, past, future)
            begin = time.perf_counter()
            made = _fed(codec, audio, block, past, future)
            seconds = time.perf_counter() - begin
            error = made - whole
            with np.errstate(divide="ignore"):  # no difference at all
                decibels = 10 * np.log10(np.sum(np.square(whole)) / np.sum(np.square(error)))
            yield (
                str(block),
                str(past) if codec.config.transformer else "–",
                str(future) if codec.config.transformer else "–",
                f"{stream.latency / codec.sample_rate:.2f}",
                f"{len(audio) / codec.sample_rate / seconds:.1f}",
                f"{decibels:.1f}",
                f"{np.abs(error).max() / np.abs(whole).max():.1e}",
            )


def _fed(
    codec: Codec, audio: Float[np.ndarray, "T C"], block: int, past: int, future: int
) -> Float[np.ndarray, "T C"]:
    stream, samples = (
        codec.stream(block=block, past=past, future=future),
        block * codec.config.downsampling_ratio,
    )
    made = [stream.reconstruct(audio[at : at + samples]) for at in range(0, len(audio), samples)]
    return np.concatenate([*made, stream.reconstruct(audio[:0], last=True)])


if __name__ == "__main__":
    run_program(main)
