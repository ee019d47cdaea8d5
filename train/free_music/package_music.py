"""The music in an unpacked package, and its conversion to FLAC.

It writes FLAC because reading a crop at a random place costs about a third of what it costs in an Ogg
(docs/performance.md). The rate is the model's, so that no crop has to be resampled, and 16 bits suffice
because the noise of a lossy file is louder than theirs.
"""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import soundfile
from absl import logging

from earvae_jax.audio.reader import AudioReader
from earvae_jax.audio.resampling import Resampler
from earvae_jax.borders import explaining, reason, shown
from earvae_jax.errors import UserError

_AUDIO = frozenset((".ogg", ".oga", ".opus", ".flac", ".wav", ".mp3", ".m4a"))
_ARCHIVES = frozenset((".pk3", ".zip"))  # in which games keep their data
_MUSIC = "music"  # the folder that games keep it in, apart from effects and voices
_BLOCK = 1 << 18  # samples
_LOUDEST = 1 - 2**-15  # the largest number of 16 bits


@dataclasses.dataclass(frozen=True)
class Music:
    """A file of music: where it lies now, its place in the package, and its new name."""

    path: Path
    source: str  # in the package, through archives
    target: PurePosixPath


def find_music(content: Path, extracted: Path) -> Iterator[Music]:
    """The audio files of an unpacked package and of the archives in it.

    If a package has folders named music, only these count: the others hold effects and voices. Files of
    archives are written into `extracted` one after another; each lasts until the next is asked for.
    """
    found: dict[str, tuple[Path, str | None]] = {}  # source: its file, its name in an archive
    for path in sorted(content.rglob("*")):
        if (
            path.is_symlink() or not path.is_file()
        ):  # a link leads to music that is found anyway, or to other packages
            continue
        source = path.relative_to(content).as_posix()
        if path.suffix.lower() in _AUDIO:
            found[source] = path, None
        elif path.suffix.lower() in _ARCHIVES:
            with explaining(path, "not a readable archive"), zipfile.ZipFile(path) as archive:
                for packed_name in archive.namelist():
                    inner = PurePosixPath(packed_name)
                    if inner.suffix.lower() in _AUDIO and ".." not in inner.parts:
                        found[f"{source}/{packed_name.lstrip('/')}"] = path, packed_name
    chosen = [source for source in found if _MUSIC in PurePosixPath(source.lower()).parts[:-1]] or list(found)
    for source, target in zip(chosen, _targets(chosen), strict=True):
        path, name = found[source]
        if name is None:
            yield Music(path, source, target)
            continue
        extracted.mkdir(exist_ok=True)
        own = extracted / f"audio{PurePosixPath(name).suffix}"
        with (
            explaining(path, f"no {name} can be read from it"),
            zipfile.ZipFile(path) as archive,
            archive.open(name) as packed,
            own.open("wb") as file,
        ):
            shutil.copyfileobj(packed, file)
        yield Music(own, source, target)


def convert(
    path: Path, target: Path, sample_rate: int, minimum_seconds: float, name: str
) -> dict[str, int | float | str] | None:
    """Writes a file as FLAC and describes it; returns None if it is too short or cannot be read.

    Keys: `seconds`, `channels`, `sample_rate`, `source_sample_rate`, `clipped` (samples above full scale,
    which a lossy file can hold) and `audio_sha256` of the decoded samples, without the file's metadata.
    """
    try:
        with AudioReader(path, tell=lambda fault: logging.warning("%s: %s", name, fault)) as reader:
            if reader.count() < minimum_seconds * reader.sample_rate:
                return None
            target.parent.mkdir(parents=True, exist_ok=True)
            converted = _write(reader, target, sample_rate)
    except UserError as error:
        logging.warning("%s: left out %s", name, error)
        target.unlink(missing_ok=True)
        return None
    if float(converted["seconds"]) < minimum_seconds:
        target.unlink()
        return None
    return converted


def _write(reader: AudioReader, target: Path, sample_rate: int) -> dict[str, int | float | str]:
    channels, digest, clipped, samples = reader.channels, hashlib.sha256(), 0, 0
    digest.update(f"{channels} {reader.sample_rate}".encode())
    resampler = Resampler(reader.sample_rate, sample_rate, channels)
    with _writing(target, sample_rate, channels) as file:

        def write(block: np.ndarray) -> None:
            nonlocal clipped, samples
            clipped += int(np.sum(np.abs(block) > 1))
            samples += len(block)
            file.write(np.clip(block, -1, _LOUDEST))

        for block in reader.blocks(_BLOCK):
            digest.update(np.ascontiguousarray(block, np.float32).tobytes())
            write(resampler(block))
        write(resampler(np.zeros((0, channels), np.float32), last=True))
    return {
        "seconds": round(samples / sample_rate, 4),
        "channels": channels,
        "sample_rate": sample_rate,
        "source_sample_rate": reader.sample_rate,
        "clipped": clipped,
        "audio_sha256": digest.hexdigest(),
    }


@contextlib.contextmanager
def _writing(target: Path, sample_rate: int, channels: int) -> Iterator[soundfile.SoundFile]:
    try:
        with soundfile.SoundFile(
            os.fsencode(target), "w", sample_rate, channels, "PCM_16", format="FLAC"
        ) as file:
            yield file
        # libsndfile reports no errors when it closes a file.
        with soundfile.SoundFile(os.fsencode(target)) as file:
            file.seek(max(0, file.frames - 1))
    except soundfile.LibsndfileError as error:
        raise OSError(
            None, f"{shown(target)} ({reason(error)}): no space left, or the device failed"
        ) from None


def _targets(sources: list[str]) -> list[PurePosixPath]:
    """Names below the folder that all share; names that differ only in their ending keep it."""
    paths = [PurePosixPath(source) for source in sources]
    if not paths:
        return []
    shared = PurePosixPath(os.path.commonpath([path.parent for path in paths]))
    names = [path.relative_to(shared) for path in paths]
    plain = [name.with_suffix("") for name in names]
    return [
        (own if plain.count(own) == 1 else name).with_name(
            f"{own.name if plain.count(own) == 1 else name.name}.flac"
        )
        for name, own in zip(names, plain, strict=True)
    ]
