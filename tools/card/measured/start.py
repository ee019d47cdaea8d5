"""What the cache of compiled programs gains: `earvae reconstruct` of five seconds, at first without it."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tools.card.measured.part import Asked, run
from tools.card.measured.song import make_song

_SECONDS = 5


def measure(asked: Asked) -> dict[str, Any]:
    """Starts the command twice, each time in a process of its own."""
    config = asked.config
    assert config.sample_rate is not None
    song = make_song(asked.work / "clip.flac", _SECONDS, config.sample_rate)
    cache = asked.work / "empty-cache"
    shutil.rmtree(cache, ignore_errors=True)
    words = [sys.executable, "-m", "earvae_jax", "reconstruct", str(song)]
    words += ["--checkpoint", str(asked.checkpoint()), "--dtype", "bfloat16", "--overwrite"]
    words += ["--output-dir", str(asked.work / "clips"), "--compilation-cache", str(cache)]
    first = _timed(words)
    programs = _programs(cache)
    second = _timed(words)
    return {
        "audio_seconds": _SECONDS,
        "first_seconds": first,
        "second_seconds": second,
        "programs": programs,
        "programs_after_second": _programs(cache),
        "passed": 0 < programs == _programs(cache),
    }


def _timed(words: list[str]) -> float:
    environment = {key: value for key, value in os.environ.items() if key != "XLA_PYTHON_CLIENT_PREALLOCATE"}
    started = time.perf_counter()
    subprocess.run(words, check=True, env=environment)
    return time.perf_counter() - started


def _programs(cache: Path) -> int:
    return len(list(cache.rglob("*-cache")))


if __name__ == "__main__":
    run(measure, __doc__)
