"""Finds, fetches and unpacks Debian packages as files. Nothing is installed."""

import fnmatch
import os
import re
import subprocess
from pathlib import Path

from earvae_jax.borders import shown
from earvae_jax.errors import UserError


def resolve(pattern: str) -> str | None:
    """The newest package on this system that a name (or a pattern, `wesnoth-*-music`) fits; or None."""
    prefix = re.split(r"[*?\[]", pattern)[0]
    names = fnmatch.filter(_output("apt-cache", "pkgnames", prefix).split(), pattern)
    return max(names, key=_version_key, default=None)


def download(name: str, folder: Path) -> Path:
    """Fetches a package into a folder.

    Raises:
      UserError: apt cannot download it.
    """
    try:
        _output("apt-get", "--quiet", "download", name, folder=folder)
    except UserError as error:
        raise UserError(f"{name}: cannot be downloaded ({error}); apt-get update may help") from None
    return next(folder.glob("*.deb"))


def field(package: Path, name: str) -> str:
    """A field of a package file, such as Version."""
    return _output("dpkg-deb", "--field", str(package), name).strip()


def unpack(package: Path, folder: Path) -> None:
    """Writes the files of a package below a folder."""
    try:
        _output("dpkg-deb", "--extract", str(package), str(folder))
    except UserError as error:
        raise UserError(f"{shown(package)}: cannot be unpacked ({error})") from None


def _output(*words: str, folder: Path | None = None) -> str:
    environment = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError:
        raise UserError(f"this needs Debian or Ubuntu: there is no {words[0]} here") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(("E:", "dpkg"))] or lines
        raise UserError(errors[-1].removeprefix("E: ") if errors else f"{words[0]} failed")
    return done.stdout


def _version_key(name: str) -> list[tuple[int, str]]:
    """A sort key that puts 1.16 after 1.9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
