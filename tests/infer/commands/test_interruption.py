"""Killed or interrupted at any moment, no broken output stands under its final name; a rerun finishes."""

import os
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from earvae_jax.audio.reader import read
from earvae_jax.audio.writer import write
from earvae_jax.infer.latent_sets.records import STATISTICS
from earvae_jax.infer.latents import read_latents

pytestmark = pytest.mark.usefixtures("quick_compilation")

RATE = 8000
FILES, SAMPLES = 40, 60_000
# What a shell starts in the background ignores Ctrl-C, and so would all that it starts.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from earvae_jax.command import main
main()
"""
COMMAND = (sys.executable, "-c", PROGRAM)


def make_music(root, samples=SAMPLES):
    for index in range(FILES):
        audio = 0.1 * np.random.default_rng(index).standard_normal((samples + index, 2), np.float32)
        write(root / f"{index:02}.wav", audio, RATE)
    return root


@pytest.fixture
def music(tmp_path):
    return make_music(tmp_path / "in")


def start(music, out, checkpoint, *more, command="reconstruct"):
    words = (command, music, "--checkpoint", checkpoint, "--output-dir", out, *more)
    return subprocess.Popen([*COMMAND, *map(str, words)], stderr=subprocess.PIPE, text=True)


def finished(out, samples=SAMPLES) -> list[str]:
    """Names of the outputs; every one must be whole."""
    names = [name for name in sorted(listed(out)) if not name.startswith(".")]
    for name in names:
        path = out / name
        found = read_latents(path).samples if path.suffix == ".npz" else len(read(path)[0])
        assert found == samples + int(name[:2]), name
    return names


def listed(out) -> set[str]:
    """What is in an output folder, but for the statistics of all latents."""
    return {path.name for path in out.iterdir()} - {STATISTICS} if out.exists() else set()


def wait_for_outputs(process, out, count):
    deadline = time.monotonic() + 120
    while process.poll() is None and len(list(out.glob("[!.]*.*"))) < count:
        assert time.monotonic() < deadline, "nothing is written"
        time.sleep(0.005)


@pytest.mark.parametrize(
    "command", ["reconstruct", *(pytest.param(name, marks=pytest.mark.slow) for name in ("encode", "decode"))]
)
def test_killed_at_random_moments(command, music, small_checkpoint, tmp_path, earvae):
    out, moments, model = tmp_path / "out", random.Random(0), ("--checkpoint", small_checkpoint)
    if command == "decode":
        music, audio = tmp_path / "latents", music
        assert earvae("encode", audio, *model, "--output-dir", music)[0] == 0
    done = 0
    for _ in range(2):
        process = start(music, out, small_checkpoint, command=command)
        wait_for_outputs(process, out, min(done + moments.randint(1, 5), FILES))
        time.sleep(moments.random() / 50)
        process.kill()
        process.communicate()
        now = len(finished(out))
        assert now > done
        done = now
    status, lines = earvae(command, music, *model, "--output-dir", out)
    assert status == 0 and f"{done} already there" in lines[-1]
    assert len(finished(out)) == FILES and len(listed(out)) == FILES, "temporaries are left"


@pytest.mark.parametrize(
    ("command", "number", "status", "word"),
    [
        ("reconstruct", signal.SIGINT, 130, "interrupted"),
        ("encode", signal.SIGINT, 130, "interrupted"),
        ("encode", signal.SIGTERM, 143, "terminated"),
    ],
)
def test_interrupted(command, number, status, word, small_checkpoint, tmp_path):
    # Long enough that a busy machine does not finish all of them before the signal arrives.
    out, samples = tmp_path / "out", 10 * SAMPLES
    process = start(make_music(tmp_path / "in", samples), out, small_checkpoint, command=command)
    wait_for_outputs(process, out, 1)
    process.send_signal(number)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == status, printed
    assert f"{word}; finished outputs are kept" in printed and "Traceback" not in printed
    names = finished(out, samples)
    assert 1 <= len(names) < FILES
    assert len(listed(out)) == len(names), "a temporary is left"


def test_two_processes_share_the_files(music, small_checkpoint, tmp_path):
    for path in sorted(music.iterdir())[5:]:
        path.unlink()
    out = tmp_path / "out"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    processes = [
        start(
            music, out, small_checkpoint,
            "--coordinator", coordinator, "--num-processes", 2, "--process-id", index,
        )
        for index in range(2)
    ]  # fmt: skip
    printed = [process.communicate(timeout=180)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    written = [[line.split(" -> ")[0] for line in text.splitlines() if " -> " in line] for text in printed]
    assert (len(written[0]), len(written[1])) == (3, 2)
    assert not set(written[0]) & set(written[1])
    assert len(finished(out)) == 5


def test_what_a_running_process_writes_is_left_alone(tmp_path):
    from earvae_jax.system.atomic import replacing

    mine = tmp_path / f".a.wav.{socket.gethostname()}-{os.getppid()}.partial"
    other = tmp_path / ".a.wav.elsewhere-1.partial"
    for path in (mine, other):
        path.write_text("half")
    with replacing(tmp_path / "a.wav") as temporary:
        temporary.write_text("whole")
    assert mine.exists() and other.exists()
