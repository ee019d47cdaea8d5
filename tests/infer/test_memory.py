"""An hour of audio takes no more memory than two minutes."""

import subprocess
import sys

import numpy as np
import pytest
from tolerances import MEMORY_GROWTH

from earvae_jax.audio.writer import writing

RATE = 44_100
SCRIPT = """
import pathlib, re, sys
from earvae_jax import command
try:
    command._run(command._parse(["earvae", *sys.argv[1:]]))
except SystemExit as ended:
    assert ended.code == 0
# ru_maxrss would begin with the parent's.
print(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
"""


def peak_memory(folder, checkpoint, minutes: int) -> int:
    """High-water mark in KiB of a process that reconstructs a stereo file of so many minutes."""
    path = folder / f"{minutes}.wav"
    block = 0.1 * np.random.default_rng(0).standard_normal((RATE * 10, 2), np.float32)
    with writing(path, sample_rate=RATE, channels=2) as file:
        for _ in range(6 * minutes):
            file.write(block)
    words = ("reconstruct", path, "--checkpoint", checkpoint, "--output-dir", folder / "out")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
    )
    path.unlink()
    (folder / "out" / path.name).unlink()
    return int(done.stdout)


@pytest.mark.hour
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_an_hour_takes_the_memory_of_two_minutes(checkpoint, tmp_path):
    short, long = (peak_memory(tmp_path, checkpoint, minutes) for minutes in (2, 60))
    assert long <= MEMORY_GROWTH * short, f"{long} KiB for an hour, {short} KiB for two minutes"
