"""What became of a case: a result, one clear line, or a fault."""

import dataclasses
import re
import traceback
from collections.abc import Sequence
from pathlib import Path

from earvae_jax.borders import shown

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One line of a campaign's record."""

    number: int
    domain: str
    kind: str  # "result", "line" or "fault"
    made: str  # what was done to the input
    cause: str = ""  # of a fault; equal for faults of one cause
    detail: str = ""  # what the program said, or the traceback
    seconds: float = 0.0
    megabytes: int = 0  # the process at its largest during the case

    def to_dict(self) -> dict:
        """As JSON."""
        return dataclasses.asdict(self)


class FaultError(Exception):
    """What a case must not do; carries its cause and the detail."""

    def __init__(self, cause: str, detail: str = ""):
        super().__init__(cause)
        self.cause, self.detail = cause, detail


def traceback_fault(error: BaseException) -> FaultError:
    """The fault of an exception that is not for a person: its type and where the project let it through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _is_ours(frame.filename)]
    place = f"{Path(ours[-1].filename).relative_to(ROOT)} {ours[-1].name}" if ours else "no frame of ours"
    thrown = Path(frames[-1].filename).name if frames else "?"
    text = "".join(traceback.format_exception(error))
    return FaultError(f"traceback: {type(error).__name__} through {place} from {thrown}", text[-6000:])


def _is_ours(filename: str) -> bool:
    path = Path(filename)
    inside = path.is_absolute() and path.is_relative_to(ROOT)
    return inside and path.relative_to(ROOT).parts[0] in ("earvae_jax", "convert", "infer", "train")


def check_line(message: str, names: Sequence[str], who: str) -> None:
    """A refusal is one line, not empty, and names its subject (one of `names`, where there are any)."""
    if not message.strip():
        raise FaultError(f"empty message: {who}")
    if len(message.splitlines()) > 1:
        raise FaultError(f"several lines: {who}: {general(message.splitlines()[0])}", message)
    # A message shows a name as a line of text can hold it.
    if names and not any(text in message for name in names for text in (name, shown(name))):
        raise FaultError(f"names no file: {who}: {general(message)}", message)


def general(message: str) -> str:
    """A message without its numbers and names, to group by."""
    message = re.sub(r"'[^']*'|\"[^\"]*\"", "…", message)
    return re.sub(r"\d+", "#", message)[:100]


def first_frames(dump: str) -> str:
    """Where a process hung or died, of what `faulthandler` printed: the innermost frame of ours, or any."""
    frames = re.findall(r'File "([^"]+)", line \d+ in (\S+)', dump)
    ours = [f"{Path(name).relative_to(ROOT)} {function}" for name, function in frames if _is_ours(name)]
    others = [f"{Path(name).name} {function}" for name, function in frames]
    return (ours or others or ["an unknown place"])[0]
