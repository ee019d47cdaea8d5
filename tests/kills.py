"""Kills, full disks and vanishing files, many times: `python tests/kills.py [--kills 100] [--seed 0]`.

Encodes, reconstructs and trains in processes of their own, which are killed (SIGKILL, and one in five
SIGTERM) at random moments of their lives; after each kill everything with a final name has to be whole. The
same command then finishes, and its results have to be those of a run that nobody killed. On Linux, as root:
the same on a disk that is full, and on one that cannot be written. Prints a table; the exit status is 1 if
anything was found.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("helpers")))

import light_training
import numpy as np
import small_models
import small_training

from earvae_jax import checkpoints
from earvae_jax.audio.reader import read
from earvae_jax.audio.writer import write
from earvae_jax.infer.latent_sets.records import STATISTICS
from earvae_jax.infer.latents import read_latents

_RATE = 8000
_FILES = 30
_COMMAND = (sys.executable, "-c", light_training.COMMAND)


class Findings:
    """What was seen of each kind of attempt, and what was wrong."""

    def __init__(self):
        self.rows: list[tuple[str, int, int, int]] = []
        self.faults: list[str] = []

    def check(self, holds: bool, fault: str) -> None:
        """Notes a fault unless it holds."""
        if not holds:
            self.faults.append(fault)
            sys.stdout.write(f"FAULT: {fault}\n")

    def table(self) -> str:
        """Everything as a table."""
        lines = ["| what | attempts | outputs checked | faults |", "|---|---|---|---|"]
        return "\n".join(lines + ["| {} | {} | {} | {} |".format(*row) for row in self.rows]) + "\n"


def main() -> int:
    """Runs all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    findings, moments = Findings(), random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        checkpoint = place / "small.safetensors"
        checkpoints.save(checkpoint, small_models.model(small_models.KINDS["even strides"]))
        music = _music(place / "music")
        third = -(-arguments.kills // 3)
        for command in ("encode", "reconstruct"):
            call = (command, music, "--checkpoint", checkpoint, "--output-dir")
            _kill_files(findings, moments, call, place / command, third)
        _kill_training(findings, moments, place, music, arguments.kills - 2 * third)
        _vanishing(findings, moments, place, checkpoint)
        _full_and_read_only(findings, place, music, checkpoint)
    sys.stdout.write("\n" + findings.table())
    return 1 if findings.faults else 0


def _music(folder: Path) -> Path:
    for number in range(_FILES):
        audio = 0.1 * np.random.default_rng(number).standard_normal((60_000 + number, 2), np.float32)
        write(folder / f"{number:02}.wav", audio, _RATE)
    return folder


def _start(*words) -> subprocess.Popen:
    return subprocess.Popen([*_COMMAND, *map(str, words)], stderr=subprocess.PIPE, text=True)


def _finished(findings: Findings, out: Path) -> int:
    """Outputs under their final names, each of which is opened and measured."""
    paths = [out / name for name in sorted(_names(out)) if not name.startswith(".")]
    for path in paths:
        length = read_latents(path).samples if path.suffix == ".npz" else len(read(path)[0])
        findings.check(length == 60_000 + int(path.stem), f"{path.name}: {length} samples")
    return len(paths)


def _names(out: Path) -> set[str]:
    """What is in an output folder, but for the statistics of all latents."""
    return {path.name for path in out.iterdir()} - {STATISTICS} if out.exists() else set()


def _kill_files(findings: Findings, moments: random.Random, call: tuple, out: Path, kills: int) -> None:
    started = time.monotonic()
    process = _start(*call, out.with_name("whole"))
    findings.check(process.wait() == 0, f"{call[0]} of good files failed")
    duration = time.monotonic() - started
    faults, made = len(findings.faults), 0
    for number in range(kills):
        process = _start(*call, out)
        time.sleep(moments.uniform(0.2, 1.0) * duration)
        process.send_signal(signal.SIGTERM if number % 5 == 4 else signal.SIGKILL)
        process.communicate()
        now = _finished(findings, out)
        made += now
        if now == _FILES:
            shutil.rmtree(out)  # all done: once more from the beginning
    last = _start(*call, out)
    printed = last.communicate()[1]
    findings.check(last.returncode == 0, f"{call[0]} after {kills} kills: {printed[-300:]}")
    made += _finished(findings, out)
    findings.check(len(_names(out)) == _FILES, f"{call[0]}: temporaries are left")
    for path in (out / name for name in _names(out)):
        same = _content(path) == _content(out.with_name("whole") / path.name)
        findings.check(same, f"{path}: not what an uninterrupted run makes")
    shutil.rmtree(out.with_name("whole"))
    findings.rows.append((f"kill `{call[0]}`", kills, made, len(findings.faults) - faults))


def _content(path: Path) -> bytes:
    if path.suffix == ".npz":
        latents = read_latents(path)
        return latents.mean.tobytes() + latents.std.tobytes()
    return read(path)[0].tobytes()  # the header of a float WAV has the time of writing


def _kill_training(findings: Findings, moments: random.Random, place: Path, music: Path, kills: int) -> None:
    data = small_training.config().to_dict()["data"] | {"train": [str(music)], "threads": 2}
    changes = {"steps": 40, "checkpoint_every": 3, "validate_every": 5, "keep_checkpoints": 2}
    config = small_training.config(data=data, **changes)
    config_file = light_training.write_config(place / "config.json", config)
    whole, killed = place / "whole", place / "killed"
    started = time.monotonic()
    findings.check(light_training.run_command(config_file, whole).wait() == 0, "training failed")
    duration = time.monotonic() - started
    faults, models = len(findings.faults), 0
    for number in range(kills):
        process = light_training.run_command(config_file, killed)
        time.sleep(moments.uniform(0.2, 1.0) * duration)
        process.send_signal(signal.SIGTERM if number % 5 == 4 else signal.SIGKILL)
        process.communicate()
        for model in killed.glob("*.safetensors"):
            checkpoints.load(model)
            models += 1
    last = light_training.run_command(config_file, killed)
    printed = last.communicate()[1]
    findings.check(last.returncode == 0, f"training after {kills} kills: {printed[-300:]}")
    try:
        light_training.assert_same_run(whole, killed, config)
    except AssertionError as error:
        findings.check(False, f"training: {error}")
    findings.check(
        {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()},
        "training: other files than those of an uninterrupted run are left",
    )
    findings.rows.append(("kill `train`", kills, models, len(findings.faults) - faults))


def _vanishing(findings: Findings, moments: random.Random, place: Path, checkpoint: Path) -> None:
    """Files, and then folders, go while they are being worked on."""
    faults, made, attempts = len(findings.faults), 0, 6
    for number in range(attempts):
        music, out = _music(place / "going"), place / f"gone-{number}"
        process = _start("encode", music, "--checkpoint", checkpoint, "--output-dir", out)
        victim: Callable[[], None]
        if number % 2:
            victim = lambda music=music: shutil.rmtree(music)  # noqa: E731
        else:
            victim = lambda music=music: [path.unlink() for path in sorted(music.iterdir())[10:20]]  # noqa: E731
        after = moments.uniform(0, 1)
        timer = threading.Thread(target=_when_begun, args=(out, process, after, victim))
        timer.start()
        printed = process.communicate()[1]
        timer.join()
        findings.check("Traceback" not in printed, f"vanishing: {printed[-300:]}")
        made += (count := _finished(findings, out))
        missing = sum("no such file" in line for line in printed.splitlines())
        findings.check(count + missing == _FILES, f"vanishing: {count} made, {missing} named")
        findings.check(process.returncode == (1 if missing else 0), "vanishing: exit status")
        shutil.rmtree(music, ignore_errors=True)
    findings.rows.append(("files and folders vanish", attempts, made, len(findings.faults) - faults))


def _when_begun(out: Path, process: subprocess.Popen, after: float, victim: Callable[[], None]) -> None:
    """Calls `victim` some seconds after the first output: the inputs have been listed then."""
    while process.poll() is None and not any(out.glob("*.npz")):
        time.sleep(0.02)
    time.sleep(after)
    victim()


def _full_and_read_only(findings: Findings, place: Path, music: Path, checkpoint: Path) -> None:
    small = place / "small-disk"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", small], check=False).returncode:
        sys.stdout.write("full and read-only disks are left out: no disk can be mounted\n")
        return
    try:
        for command, suffix in (("encode", ".npz"), ("reconstruct", ".wav"), ("reconstruct", ".flac")):
            faults, out = len(findings.faults), small / "out"
            form = () if command == "encode" else ("--format", suffix[1:])
            call = (command, music, "--checkpoint", checkpoint, *form, "--output-dir", out)
            process = _start(*call)
            printed = process.communicate()[1]
            findings.check(process.returncode == 1, f"full disk: status {process.returncode}")
            findings.check("Traceback" not in printed, f"full disk: {printed[-300:]}")
            made = _finished(findings, out)
            lines = [line for line in printed.splitlines() if STATISTICS not in line]
            named = sum("cannot be written" in line for line in lines)
            findings.check(made + named == _FILES, f"full disk: {made} made, {named} named")
            findings.check(len(_names(out)) == made, "full disk: temporaries are left")
            subprocess.run(["mount", "-o", "remount,size=100m", small], check=True)
            findings.check(_start(*call).wait() == 0, "full disk: the same command does not finish")
            made = _finished(findings, out)
            findings.check(made == _FILES, "full disk: not all was made in the end")
            findings.rows.append((f"full disk, `{command}` {suffix}", 1, made, len(findings.faults) - faults))
            shutil.rmtree(out)
            subprocess.run(["mount", "-o", "remount,size=3m", small], check=True)
        faults = len(findings.faults)
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        process = _start("encode", music, "--checkpoint", checkpoint, "--output-dir", small / "out")
        printed = process.communicate()[1].splitlines()
        findings.check(process.returncode == 2 and len(printed) == 1, f"read-only disk: {printed}")
        findings.rows.append(("read-only disk", 1, 0, len(findings.faults) - faults))
    finally:
        subprocess.run(["umount", small], check=False)


if __name__ == "__main__":
    sys.exit(main())
