"""Which reconstruction belongs to which original: the published folder layout, two folders, or two files."""

import dataclasses
from collections import defaultdict
from pathlib import Path

from earvae_jax.audio.search import find_audio
from earvae_jax.borders import shown
from earvae_jax.errors import UserError

SUFFIX = "_vae_rec"  # NAME.wav and NAME_vae_rec.wav, as the published evaluation pairs them


@dataclasses.dataclass(frozen=True)
class Pair:
    """An original and its reconstruction."""

    name: str
    original: Path
    reconstruction: Path


@dataclasses.dataclass(frozen=True)
class Model:
    """What one model reconstructed, as the published evaluation groups it."""

    name: str  # of its folder, relative to the folder that holds several
    folder: Path  # where results go by default
    pairs: list[Pair]
    unpaired: dict[str, str]  # by the name of a file without a partner: what is missing


def find_models(originals: str | Path, reconstructions: str | Path | None = None) -> list[Model]:
    """Pairs up files: two folders or files make one model, a single folder one for each folder of pairs.

    Two folders are matched by relative path, whatever the audio format; a reconstruction may carry the suffix
    `_vae_rec`. In a single folder every `NAME_vae_rec` is the reconstruction of the `NAME` beside it.

    Raises:
      UserError: an input does not exist or holds no pair, or one input is a file and the other a folder.
    """
    originals = Path(originals)
    if reconstructions is None:
        return _published_layout(originals)
    reconstructions = Path(reconstructions)
    for path in (originals, reconstructions):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
    if originals.is_dir() != reconstructions.is_dir():
        raise UserError(f"{originals} and {reconstructions}: give two folders or two files")
    if originals.is_file():
        pair = Pair(originals.stem, originals, reconstructions)
        return [Model(reconstructions.stem, reconstructions.parent, [pair], {})]
    model = _two_folders(originals, reconstructions)
    if not model.pairs:
        raise UserError(f"no file in {reconstructions} has the same name as one in {originals}")
    return [model]


def _published_layout(root: Path) -> list[Model]:
    if root.is_file():
        raise UserError(f"{root}: is a file; give its reconstruction too, or a folder of pairs")
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path, _ in find_audio([root]):
        folders[path.parent].append(path)
    models = []
    for folder, paths in sorted(folders.items()):
        finished = [path for path in paths if path.stem.endswith(SUFFIX)]
        if finished:
            sources = {Path(path.name): path for path in paths if path not in finished}
            name = folder.resolve().name if folder == root else str(folder.relative_to(root))
            models.append(_match(name, folder, sources, {Path(path.name): path for path in finished}))
    if not any(model.pairs for model in models):
        raise UserError(
            f"{root}: holds no pair NAME.wav, NAME{SUFFIX}.wav; give two folders as two arguments"
        )
    return models


def _two_folders(originals: Path, reconstructions: Path) -> Model:
    sources, finished = (
        {relative: path for path, relative in find_audio([folder])} for folder in (originals, reconstructions)
    )
    return _match(reconstructions.resolve().name, reconstructions, sources, finished)


def _match(name: str, folder: Path, sources: dict[Path, Path], finished: dict[Path, Path]) -> Model:
    """Pairs files by relative name without ending; of several candidates, the same ending decides."""
    by_name: dict[Path, list[Path]] = defaultdict(list)
    for relative in sources:
        by_name[relative.with_suffix("")].append(relative)
        by_name[relative].append(relative)  # a.wav and a.mp3 become a.wav.wav and a.mp3.wav
    pairs, unpaired, used = [], {}, set()
    for relative, path in sorted(finished.items()):
        plain = relative.with_stem(relative.stem.removesuffix(SUFFIX))
        candidates = by_name.get(relative.with_suffix("")) or by_name.get(plain.with_suffix("")) or []
        same_ending = [found for found in candidates if found.suffix == relative.suffix]
        candidates = same_ending or candidates
        used |= set(candidates)
        if len(candidates) == 1:
            pairs.append(Pair(shown(_plain_name(candidates[0], sources)), sources[candidates[0]], path))
        elif candidates:
            unpaired[shown(relative)] = (
                f"belongs to {' or '.join(map(shown, sorted(candidates)))}: keep one of them"
            )
        else:
            unpaired[shown(relative)] = f"has no original {shown(plain.with_suffix('.*'))}"
    unpaired |= {shown(relative): "has no reconstruction" for relative in sorted(set(sources) - used)}
    return Model(shown(name), folder, pairs, unpaired)


def _plain_name(relative: Path, sources: dict[Path, Path]) -> Path:
    """The name without its ending, unless another file would have the same."""
    plain = relative.with_suffix("")
    return plain if sum(other.with_suffix("") == plain for other in sources) == 1 else relative
