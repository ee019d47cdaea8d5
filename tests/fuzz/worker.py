"""`python -m fuzz.worker STATE FOLDER SEED SECONDS`: runs cases by number, a JSON line for each."""

import contextlib
import faulthandler
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .outcomes import FaultError

_OUTPUT = 256 << 20  # bytes; no case has a reason to write more


def main() -> None:
    """Reads numbers until its input ends."""
    state, folder, seed, seconds = sys.argv[1:]
    folder = Path(folder)
    numbers = os.fdopen(os.dup(0), "r", encoding="ascii")
    os.dup2(
        os.open(os.devnull, os.O_RDONLY), 0
    )  # a case that reads standard input is not to wait for a number
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    said = os.open(folder / "stderr", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * _OUTPUT, 2 * _OUTPUT))  # Python ignores its signal
    faulthandler.enable()
    from .warm import Runner  # imports all of the project

    runner = Runner(Path(state), folder, int(seed), said)
    print("ready", file=answers, flush=True)
    for line in numbers:
        faulthandler.dump_traceback_later(0.8 * float(seconds))
        outcome = runner.run(int(line))
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(outcome.to_dict()), file=answers, flush=True)


@contextlib.contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Seconds, and the megabytes of the process at its largest."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    begun, numbers = time.monotonic(), {}
    yield numbers
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    numbers |= {"seconds": round(time.monotonic() - begun, 3), "megabytes": int(peak.split()[1]) >> 10}


def check_output(folder: Path) -> None:
    """Nothing half-written under a final or hidden name, and not more than a case has a reason to write."""
    files = [path for path in folder.rglob("*") if not path.is_symlink()] if folder.is_dir() else []
    half = [path.name for path in files if path.name.endswith((".partial", ".orbax-checkpoint-tmp"))]
    if half:
        raise FaultError("leaves something half-written in the output folder", ", ".join(half))
    if (size := sum(path.stat().st_size for path in files if path.is_file())) > _OUTPUT:
        raise FaultError("writes a quarter of a gigabyte or more", f"{size} bytes")


if __name__ == "__main__":
    main()
