"""Measures the cost of reading audio: `python -m earvae_jax.infer.benchmark.reading [SECONDS]`.

It makes a file of each format and reads it whole and in crops, in turns with libsndfile alone, which trusts
headers, and with `AudioReader`, in one process. Then it measures the memory that reading a long MP3 takes.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

from earvae_jax.audio.reader import AudioReader
from earvae_jax.command import run_program
from earvae_jax.system import machine

_RATE = 44_100
_BLOCK = 1 << 16
_CROP = 32_768
_CROPS = 40
_REPEATS = 7
_LONG_SECONDS = 3 * 3600
_FORMATS = ("wav", "flac", "mp3", "ogg", "m4a", "opus")


def main(words: Sequence[str] | None = None) -> None:
    """Prints both tables and the machine."""
    program = "python -m earvae_jax.infer.benchmark.reading"
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument(
        "seconds", nargs="?", default=120.0, type=float, help="length of each file; default: 120"
    )
    seconds = parser.parse_args(words).seconds
    sys.stdout.write(f"{machine.describe()}\n\n")
    sys.stdout.write(
        "| format | libsndfile s | AudioReader s | ratio | crop, libsndfile ms | crop ms | ratio |\n"
    )
    sys.stdout.write("|---|---|---|---|---|---|---|\n")
    with tempfile.TemporaryDirectory() as folder:
        for name in _FORMATS:
            path = Path(folder) / f"a.{name}"
            _make(path, seconds)
            starts = np.random.default_rng(0).integers(0, int((seconds - 2) * _RATE), _CROPS)
            whole = _in_turns(partial(_by_libsndfile, path), partial(_by_reader, path))
            crops = _in_turns(
                partial(_crops_by_libsndfile, path, starts), partial(_crops_by_reader, path, starts)
            )
            sys.stdout.write(f"| {name} | {_cells(whole, 1)} | {_cells(crops, 1000 / _CROPS)} |\n")
            path.unlink()
        path = Path(folder) / "long.mp3"
        _make(path, _LONG_SECONDS)
        used = machine.memory_used_at_most(lambda: _by_reader(path))
    if used is not None:
        sys.stdout.write(f"\n{_LONG_SECONDS // 3600} hours of MP3: {used / 1e6:.0f} MB at most\n")


def _cells(times: list[list[float]], scale: float) -> str:
    before, now = (statistics.median(column) * scale for column in times)
    if np.isnan(before):
        return f"– | {now:.3f} | –"
    ratios = [a / b for a, b in zip(*times, strict=True)]
    return f"{before:.3f} | {now:.3f} | {statistics.median(ratios):.2f}"


def _in_turns(*functions: Callable[[], None]) -> list[list[float]]:
    """Seconds of every repetition of each function; NaN if it cannot read the file."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(_REPEATS):
        for column, function in zip(times, functions, strict=True):
            started = time.perf_counter()
            try:
                function()
                column.append(time.perf_counter() - started)
            except soundfile.LibsndfileError:
                column.append(float("nan"))
    return times


def _by_libsndfile(path: Path) -> None:
    with soundfile.SoundFile(path) as file:
        while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
            np.isfinite(block).all()


def _by_reader(path: Path) -> None:
    with AudioReader(path) as reader:
        for _ in reader.blocks(_BLOCK):
            pass


def _crops_by_libsndfile(path: Path, starts: np.ndarray) -> None:
    for start in starts:
        with soundfile.SoundFile(path) as file:
            file.seek(int(start))
            file.read(_CROP, dtype="float32", always_2d=True)


def _crops_by_reader(path: Path, starts: np.ndarray) -> None:
    for start in starts:
        with AudioReader(path) as reader:
            reader.piece(int(start), _CROP)


def _make(path: Path, seconds: float) -> None:
    """Writes noise over a chord, which costs a codec about as much as music."""
    rng = np.random.default_rng(0)
    rate = 48_000 if path.suffix == ".opus" else _RATE
    time_axis = np.arange(rate) / rate
    frequencies = np.array((220, 277, 330))
    chord = np.sin(2 * np.pi * frequencies * time_axis[:, None]).sum(axis=1, keepdims=True) * (0.1, 0.08)
    blocks = ((chord + 0.05 * rng.standard_normal((rate, 2))).astype(np.float32) for _ in range(int(seconds)))
    if path.suffix in (".wav", ".flac", ".mp3", ".ogg"):
        with soundfile.SoundFile(path, "w", rate, 2) as file:
            for block in blocks:
                file.write(block)
        return
    codec, form = {".m4a": ("aac", "fltp"), ".opus": ("libopus", "flt")}[path.suffix]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, layout="stereo")
        for block in blocks:
            planes = np.ascontiguousarray(block.T if form == "fltp" else block.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(planes, format=form, layout="stereo")
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    run_program(main)
