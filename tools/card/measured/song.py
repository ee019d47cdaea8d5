"""A song from file to file by `earvae reconstruct`, with the share of the time in which the card computes.

The song is made here, ten minutes of noise over a chord in 24-bit FLAC, and so is its output. The first run
compiles or finds its programs in the cache of compiled programs; the second is traced.
"""

import argparse
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from earvae_jax.audio.writer import writing
from earvae_jax.infer.commands import reconstruct
from tools.card.measured.part import Asked, run

_SECONDS, _SMALL_SECONDS = 600, 20
_DTYPE = "bfloat16"


def measure(asked: Asked) -> dict[str, Any]:
    """Reconstructs the song twice."""
    config = asked.config
    assert config.sample_rate is not None
    seconds = _SMALL_SECONDS if asked.small else _SECONDS
    song = make_song(asked.work / "song.flac", seconds, config.sample_rate)
    words = [str(song), "--checkpoint", str(asked.checkpoint()), "--dtype", _DTYPE, "--format", "flac"]
    words += ["--output-dir", str(asked.work / "songs"), "--overwrite"]
    first = _timed(words)
    traces = asked.work / "traces"
    with jax.profiler.trace(str(traces)):
        second = _timed(words)
    newest = max(traces.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    busy, copying = busy_seconds(newest)
    return {
        "audio_seconds": seconds,
        "dtype": _DTYPE,
        "first_seconds": first,
        "seconds": second,
        "realtime": seconds / second,
        "computing_seconds": busy,
        "computing_share": None if busy is None else busy / second,
        "copying_seconds": copying,
    }


def make_song(path: Path, seconds: int, rate: int) -> Path:
    """Noise over a chord, a second at a time; what is there already stays."""
    if path.exists():
        return path
    random = np.random.default_rng(0)
    times = np.arange(rate)[:, None] / rate
    chord = 0.1 * sum(np.sin(2 * np.pi * frequency * times) for frequency in (220, 277, 330))
    with writing(path, sample_rate=rate, channels=2, format="flac") as file:
        for _ in range(seconds):
            file.write((chord + 0.05 * random.standard_normal((rate, 2))).astype(np.float32))
    return path


def busy_seconds(trace: Path) -> tuple[float | None, float | None]:
    """How long the first device computed and copied, as its trace says; None where it does not tell.

    On a CPU these are the threads of XLA, to try the program where there is no card.
    """
    profile = jax.profiler.ProfileData.from_file(str(trace))
    planes = sorted(
        (plane for plane in profile.planes if plane.name.startswith("/device:")), key=lambda p: p.name
    )
    computing: list[tuple[float, float]] = []
    copying: list[tuple[float, float]] = []
    for plane in planes[:1]:
        for line in plane.lines:
            if "Stream" in line.name or line.name == "XLA Ops":
                is_copy = "Memcpy" in line.name and "Compute" not in line.name
                (copying if is_copy else computing).extend(_spans(line))
    if not planes and jax.default_backend() == "cpu":
        host = (plane for plane in profile.planes if plane.name == "/host:CPU")
        computing = [
            span for plane in host for line in plane.lines if "XLA" in line.name for span in _spans(line)
        ]
    return _covered(computing), _covered(copying)


def _spans(line: Any) -> Iterable[tuple[float, float]]:
    return ((event.start_ns, event.start_ns + event.duration_ns) for event in line.events)


def _covered(spans: list[tuple[float, float]]) -> float | None:
    """Seconds that the spans cover together; overlaps count once."""
    if not spans:
        return None
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total / 1e9


def _timed(words: list[str]) -> float:
    parser = argparse.ArgumentParser()
    reconstruct.add_arguments(parser)
    started = time.perf_counter()
    status = reconstruct.run(parser.parse_args(words))
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(status)
    return seconds


if __name__ == "__main__":
    os.environ.pop("XLA_PYTHON_CLIENT_PREALLOCATE", None)  # the card is the command's alone, as for its users
    run(measure, __doc__)
