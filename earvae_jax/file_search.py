"""Expanding the files and folders of a command line."""

from collections.abc import Collection, Sequence
from pathlib import Path

from earvae_jax.addresses import address
from earvae_jax.errors import UserError


def find_files(
    inputs: Sequence[str | Path], extensions: Collection[str], what: str, *, output_dir: Path | None = None
) -> list[tuple[Path, Path]]:
    """Expands files and folders to (file, its name relative to the input it came from), in a fixed order.

    Folders are walked to the bottom; what has none of the extensions there is passed over, and so are hidden
    files. A file named directly is always taken, and nothing is taken twice. An `output_dir` inside a
    folder is passed over there: what an earlier run wrote is no input of the next.

    Raises:
      UserError: an input that does not exist, or inputs that hold nothing of `what` at all.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for given in map(Path, inputs):
        if given.is_dir():
            own = None if output_dir is None else output_dir.resolve()
            inside = own is not None and given.resolve() in own.parents
            for path in sorted(given.rglob("*")):
                if inside and path.resolve().is_relative_to(own):
                    continue
                relative = path.relative_to(given)
                hidden = any(part.startswith(".") for part in relative.parts)
                if path.suffix.lower() in extensions and not hidden and path.is_file():
                    found.setdefault(path.resolve(), (path, relative))
        elif given.exists():
            found.setdefault(given.resolve(), (given, Path(given.name)))
        else:
            raise UserError(f"{address(given) or given}: no such file or folder")
    if not found:
        raise UserError(f"no {what} in {', '.join(map(str, inputs))}")
    return list(found.values())
