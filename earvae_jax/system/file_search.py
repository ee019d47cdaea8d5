# ruff: noqa: PTH110, PTH112, PTH113 - pathlib's tests raise errors where there is no permission to look
"""Expands the files and folders of a command line."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from absl import logging

from earvae_jax.borders import shown
from earvae_jax.errors import UserError
from earvae_jax.system.addresses import address

STANDARD_INPUT = ("-", "/dev/stdin")
_ITS_NAME = Path("stdin")  # names the output for standard input


def find_files(
    inputs: Sequence[str | Path],
    extensions: Collection[str],
    what: str,
    *,
    output_dir: Path | None = None,
    wanted: Callable[[Path], bool] = lambda path: True,
) -> list[tuple[Path, Path]]:
    """Expands files and folders to (file, its name relative to the input it came from), in a fixed order.

    Folders are walked to the bottom, linked folders too, each of them once. In a folder, hidden files and
    files that are not `wanted` or have none of the extensions are skipped. A file named directly is always
    taken, and nothing is taken twice. The result includes broken links and folders without permission, so
    that whoever reads them says what is wrong. An `output_dir` inside a folder is skipped: what an earlier
    run wrote is not an input of the next. `-` and /dev/stdin are named `stdin`.

    Raises:
      UserError: an input does not exist, or the inputs hold no `what` at all.
    """
    own = None if output_dir is None else output_dir.resolve()
    found: dict[Path, tuple[Path, Path]] = {}
    for given in map(Path, inputs):
        if str(given) in STANDARD_INPUT:
            found.setdefault(Path("-"), (given, _ITS_NAME))
        elif os.path.isdir(given):
            walk = _Walk(extensions, wanted, own if own and given.resolve() in own.parents else None)
            for path in sorted(walk.files(given)):
                found.setdefault(_identity(path), (path, path.relative_to(given)))
        elif os.path.lexists(given):
            found.setdefault(_identity(given), (given, Path(given.name)))
        else:
            raise UserError(f"{shown(address(given) or given)}: no such file or folder")
    if not found:
        raise UserError(f"no {what} in {', '.join(map(shown, inputs))}")
    return list(found.values())


class _Walk:
    """Walks a folder and remembers the folders it has seen, as links can lead in circles."""

    def __init__(self, extensions: Collection[str], wanted: Callable[[Path], bool], passed_over: Path | None):
        self._extensions, self._wanted, self._passed_over = extensions, wanted, passed_over
        self._seen: dict[tuple[int, int], Path] = {}

    def files(self, folder: Path) -> Iterator[Path]:
        """The files below a folder, and folders that cannot be read."""
        try:
            status = folder.stat()
            entries = sorted(folder.iterdir())
        except OSError:
            yield folder
            return
        first = self._seen.setdefault((status.st_dev, status.st_ino), folder)
        if first != folder:
            logging.info("%s: the same folder as %s; its files are taken once", shown(folder), shown(first))
            return
        links = [entry for entry in entries if entry.is_symlink()]
        for entry in [*(entry for entry in entries if not entry.is_symlink()), *links]:
            if entry.name.startswith("."):
                continue
            if os.path.isdir(entry):
                if self._passed_over is None or entry.resolve() != self._passed_over:
                    yield from self.files(entry)
            elif entry.suffix.lower() in self._extensions and self._is_file(entry):
                yield entry

    def _is_file(self, path: Path) -> bool:
        broken = not os.path.exists(path)
        return broken or (os.path.isfile(path) and self._wanted(path))


def _identity(path: Path) -> Path:
    """The same for two paths to one name; a link counts as another file than its target."""
    try:
        return path.parent.resolve() / path.name
    except (OSError, RuntimeError):  # a circle of links
        return path.absolute()
