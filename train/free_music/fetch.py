"""Freely licensed music to train on: `python -m earvae_jax.train.free_music OUT [--judge]`.

Debian's archive holds hours of it in packages of games. Each package is fetched, its music becomes FLAC in
`OUT/train/PACKAGE` or `OUT/held_out/PACKAGE`, and the package is removed; nothing is installed.
`OUT/manifest.json` has the source, licence and authors of every file. `--judge` adds `OUT/judge`: music to
judge trained models, which never train on it. Repeating the command fetches what is missing.
"""

import argparse
import fnmatch
import json
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from earvae_jax.borders import read_json, reason, shown
from earvae_jax.errors import UserError
from earvae_jax.system.atomic import replacing
from earvae_jax.train.free_music import debian, debian_copyright
from earvae_jax.train.free_music.package_music import convert, find_music

# Packages are not divided, as the pieces of one game are by the same hand. Left out: hydrogen-drumkits and
# sonic-pi-samples hold single strokes and loops of a few seconds, fb-music-high a tracker score, not audio.
SPLITS = {
    "train": (
        "wesnoth-*-music",
        "warzone2100-music",
        "nexuiz-music",
        "ufoai-music",
        "supertuxkart-data",
        "widelands-data",
        "0ad-data",
    ),
    "held_out": ("singularity-music", "hedgewars-data"),
    "judge": ("asc-music", "hyperrogue-music", "planetblupi-music-ogg", "drascula-music", "fb-music-high"),
}
_NO_RECORDINGS = ("fb-music-high",)  # named above, so that it is never trained on
_RECORD = "files.json"  # in the folder of a package: its part of the manifest
# Licences of packages whose copyright file is not machine-readable, as people read them there.
_READ_BY_US = {"nexuiz-music": "GPL-2+", "wesnoth-1.16-music": "GPL-2+"}
_STRENGTH = ("judge", "held_out", "train")  # which split keeps a piece that two packages have


def split_of(package: str) -> str:
    """The split that a package belongs to; a package in no list is for training."""
    return next((split for split in _STRENGTH if _is_in(package, SPLITS[split])), "train")


def fetch(package: str, out: Path, *, sample_rate: int, minimum_seconds: float, judge: bool = False) -> None:
    """Puts the music of a package, or of a package file (.deb), into its folder, unless it is there.

    Raises:
      UserError: the package cannot be fetched or unpacked, holds no music, or is for judging and `judge` is
        False.
    """
    local = Path(package) if package.endswith(".deb") else None
    if local and not local.is_file():
        raise UserError(f"{local}: no such package file")
    name = debian.field(local, "Package") if local else package
    split = split_of(name)
    if split == "judge" and not judge:
        raise UserError(f"{name}: is for judging trained models, not for training; pass --judge to fetch it")
    settings = {"sample_rate": sample_rate, "minimum_seconds": minimum_seconds}
    folder = out / split / name
    if (folder / _RECORD).exists():
        known = read_json(folder / _RECORD, "record of a package")
        if settings != {key: known.get(key) for key in settings}:
            raise UserError(f"{shown(folder)}: was made with other settings; remove it or choose another OUT")
        return
    with replacing(folder) as temporary:
        unpacking = temporary / ".package"
        unpacking.mkdir(parents=True)
        logging.info("%s: fetching", name)
        file = local or debian.download(name, unpacking)
        version = debian.field(file, "Version")
        debian.unpack(file, unpacking / "content")
        text = _copyright(unpacking / "content", name, temporary)
        stanzas, unread = debian_copyright.parse(text), f"see {split}/{name}/copyright"
        files = []
        for music in find_music(unpacking / "content", unpacking / "extracted"):
            target = temporary / music.target
            converted = convert(music.path, target, sample_rate, minimum_seconds, name)
            if converted is None:
                continue
            terms = debian_copyright.terms_of(music.source, stanzas)
            files.append(
                {
                    "file": f"{split}/{name}/{music.target}",
                    "package": name,
                    "version": version,
                    "split": split,
                    "source": music.source,
                    "licence": terms.licence if terms else _READ_BY_US.get(name, unread),
                    "authors": list(terms.authors) if terms else [],
                    **converted,
                }
            )
        if not files:
            raise UserError(f"{name}: holds no music of {minimum_seconds:g} s or more")
        shutil.rmtree(unpacking)
        record = settings | {"package": name, "version": version, "split": split, "files": files}
        _write_json(temporary / _RECORD, record)
    logging.info("%s: %d files, %.2f h", name, len(files), _hours(files))


def gather(out: Path) -> dict:
    """Writes `manifest.json` of all packages in a folder, and returns it.

    Of two pieces that are equal sample for sample, one stays: judging before held out before training.
    """
    found = [path for split in _STRENGTH for path in sorted((out / split).glob(f"*/{_RECORD}"))]
    paths = [path for path in found if not path.parent.name.startswith(".")]  # of a run that was killed
    records = {path: read_json(path, "record of a package") for path in paths}
    known: dict[str, str] = {}
    for path, record in records.items():
        kept = []
        for file in record["files"]:
            first = known.setdefault(file["audio_sha256"], file["file"])
            if first == file["file"]:
                kept.append(file)
                continue
            logging.info("%s: the same audio as %s, left out", file["file"], first)
            (out / file["file"]).unlink(missing_ok=True)
            record.setdefault("left_out", []).append(file | {"same_as": first})
        if len(kept) < len(record["files"]):
            record["files"] = kept
            _write_json(path, record)
    manifest = {
        "packages": [
            {key: record[key] for key in ("package", "version", "split", "sample_rate", "minimum_seconds")}
            | {"files": len(record["files"]), "hours": round(_hours(record["files"]), 4)}
            for record in records.values()
        ],
        "files": [file for record in records.values() for file in record["files"]],
        "left_out": [file for record in records.values() for file in record.get("left_out", [])],
    }
    _write_json(out / "manifest.json", manifest)
    return manifest


def table(manifest: dict) -> str:
    """Hours and licences of each package, and hours of each split, as Markdown."""
    lines = ["| split | package | version | pieces | hours | licences |", "|---|---|---|---|---|---|"]
    for package in manifest["packages"]:
        own = [file for file in manifest["files"] if file["package"] == package["package"]]
        licences = sorted({"see copyright" if "/" in f["licence"] else f["licence"] for f in own})
        cells = (package["split"], package["package"], package["version"], len(own), f"{_hours(own):.2f}")
        lines.append(f"| {' | '.join(map(str, cells))} | {', '.join(licences)} |")
    for split in SPLITS:
        own = [file for file in manifest["files"] if file["split"] == split]
        if own:
            lines.append(f"| {split} | all | | {len(own)} | {_hours(own):.2f} | |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all done, 1 some package failed, 2 the call is wrong."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except UserError as error:
        logging.error("%s", error)
        return 2


def _run(options: argparse.Namespace) -> int:
    asked = options.packages or [name for split in ("train", "held_out") for name in SPLITS[split]]
    if options.judge and not options.packages:
        asked += [name for name in SPLITS["judge"] if name not in _NO_RECORDINGS]
    packages = {name: name if name.endswith(".deb") else debian.resolve(name) for name in asked}
    missing = [name for name, found in packages.items() if found is None]
    if len(missing) == len(packages):
        raise UserError(f"apt knows no package {', '.join(missing)}: run apt-get update")
    if missing:
        logging.warning("not in this release: %s", ", ".join(missing))
    failed = bool(missing and options.packages)
    for package in filter(None, packages.values()):
        try:
            fetch(
                package,
                options.out,
                sample_rate=options.sample_rate,
                minimum_seconds=options.minimum_seconds,
                judge=options.judge,
            )
        except UserError as error:
            logging.error("%s", error)
            failed = True
        except OSError as error:
            raise UserError(f"{shown(options.out)}: cannot be written: {reason(error)}") from None
    sys.stdout.write(table(gather(options.out)))
    return int(failed)


def _copyright(content: Path, name: str, folder: Path) -> str:
    """The text of a package's copyright file, of which a copy stays in `folder`."""
    path = content / "usr/share/doc" / name / "copyright"
    if not path.is_file():
        raise UserError(f"{name}: has no copyright file, so its licence is unknown")
    shutil.copyfile(path, folder / "copyright")
    return path.read_text(encoding="utf-8", errors="replace")


def _is_in(package: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(package, pattern) for pattern in patterns)


def _hours(files: Sequence[dict]) -> float:
    return sum(file["seconds"] for file in files) / 3600


def _write_json(path: Path, value: dict) -> None:
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be written: {reason(error)}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m earvae_jax.train.free_music",
        description="Fetches freely licensed music from Debian's archive to train on.",
        allow_abbrev=False,
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the music")
    parser.add_argument(
        "--packages",
        nargs="+",
        metavar="PACKAGE",
        help="names (with * for the newest that fits) or package files (.deb); default: the known packages",
    )
    parser.add_argument(
        "--sample-rate", type=_rate, default=44_100, metavar="HZ", help="of the FLAC; default: 44100"
    )
    parser.add_argument(
        "--minimum-seconds",
        type=_seconds,
        default=10.0,
        metavar="S",
        help="shortest piece to keep; default: 10",
    )
    parser.add_argument(
        "--judge", action="store_true", help="also fetch the music for judging trained models"
    )
    return parser


def _rate(text: str) -> int:
    if not text.isdecimal() or not 8000 <= int(text) <= 192_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate between 8000 and 192000 Hz")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds")
    return seconds
