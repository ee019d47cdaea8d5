"""Finds the recordings to train and validate on; their names do not depend on where the music lies."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

from earvae_jax.audio.search import find_audio
from earvae_jax.errors import UserError

_HELD_OUT = 1 / 20  # of the recordings


@dataclasses.dataclass(frozen=True)
class Recording:
    """An audio file."""

    path: Path
    name: str  # relative to the place that it was found in, whatever the working directory

    @property
    def rank(self) -> float:
        """A number in [0, 1) drawn from the name."""
        return int.from_bytes(hashlib.sha256(self.name.encode(errors="surrogateescape")).digest()[:6]) / 2**48


def find(places: tuple[str, ...], key: str) -> list[Recording]:
    """The audio files of folders, files and manifests (.txt, one path a line) in the order of their names.

    No file is taken twice. Paths in a manifest are taken as they are, even if no such file exists.

    Raises:
      UserError: a place does not exist or holds no audio; the message names `key` of the config.
    """
    found: dict[Path, Recording] = {}
    for place in (Path(place).expanduser() for place in places):
        if place.suffix == ".txt":
            given = [(place.parent / line, Path(line)) for line in _lines(place)]
        elif place.exists():
            given = [(place, Path() if place.is_dir() else Path(place.name))]
        else:
            raise UserError(f"{place}: no such file or folder ({key})")
        for path, name in given:
            inside = [(path, name)]
            if path.is_dir():
                inside = [(file, name / relative) for file, relative in find_audio([path])]
            for file, own in inside:
                found.setdefault(file.resolve(), Recording(file, own.as_posix()))
    if not found:
        raise UserError(f"no audio files in {', '.join(places)} ({key})")
    return sorted(found.values(), key=lambda recording: recording.name)


def split(
    recordings: list[Recording], usable: Callable[[Recording], bool]
) -> tuple[list[Recording], list[Recording]]:
    """Divides recordings into those to train on and those to hold out for validation.

    Their names decide, so that a new song moves no other one. Each side gets at least one usable recording,
    for which a few songs may have to move. A single usable recording serves for both sides.
    """
    ranked = sorted(recordings, key=lambda recording: recording.rank)
    held = [recording for recording in ranked if recording.rank < _HELD_OUT]
    rest = ranked[len(held) :]
    if not any(map(usable, held)):
        first = next(filter(usable, rest), None)
        if first is None:
            return recordings, recordings
        held.append(first)
        rest.remove(first)
    if not any(map(usable, rest)):
        *others, last = filter(usable, held)
        if not others:
            return recordings, [last]
        held.remove(last)
    chosen = set(held)
    return [recording for recording in recordings if recording not in chosen], held


def _lines(manifest: Path) -> list[str]:
    try:
        lines = manifest.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{manifest}: not a readable manifest ({error})") from None
    return [line.strip() for line in lines if line.strip()]
