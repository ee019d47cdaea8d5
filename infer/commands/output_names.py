"""Names of outputs: they follow the inputs' names, and no two are the same."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from absl import logging

from earvae_jax.borders import shown
from earvae_jax.infer.commands.jobs import Job


def jobs_for(
    found: Sequence[tuple[Path, Path]], output_dir: Path, suffix: str, known: Collection[str]
) -> list[Job]:
    """The jobs of files with their relative names; no two outputs get the same name.

    `album/song.mp3` becomes `album/song` plus the suffix. If two inputs would get one name, both keep their
    own ending (`song.mp3.wav`, `song.flac.wav`); if that is not enough, the folders of their inputs are put
    in front. The log names each such output.

    Args:
      known: endings to remove.
    """
    levels = [0] * len(found)
    while True:
        names = [
            _name(source, relative, suffix, known, level)
            for (source, relative), level in zip(found, levels, strict=True)
        ]
        counts = Counter(names)
        raised = [
            level + (counts[name] > 1 and level < len(source.absolute().parts))
            for (source, _), name, level in zip(found, names, levels, strict=True)
        ]
        if raised == levels:
            break
        levels = raised
    jobs = []
    for (source, relative), name, level in zip(found, names, levels, strict=True):
        if level:
            logging.info(
                "%s: is written as %s, as another input has the same name", shown(source), shown(name)
            )
        jobs.append(Job(source, str(relative), output_dir / name))
    return jobs


def _name(source: Path, relative: Path, suffix: str, known: Collection[str], level: int) -> Path:
    if level == 0:
        ending = relative.suffix if relative.suffix.lower() in known else ""
        return relative.with_name(relative.name.removesuffix(ending) + suffix)
    folders = source.absolute().parent.parts[1:]
    before = folders[len(folders) - level + 1 :] if level > 1 else ()
    return Path(*before, relative.with_name(relative.name + suffix))
