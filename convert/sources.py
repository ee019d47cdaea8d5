"""Finds the weights, and the config that lies beside them, in a file, a folder or a repository of the Hub."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from absl import logging

from earvae_jax import known_models
from earvae_jax.borders import exists, explaining, shown
from earvae_jax.convert.fetch import (
    HubAddress,
    cached_files,
    fetched,
    folder_of,
    hub_address,
    listed_files,
)
from earvae_jax.convert.foreign import configs
from earvae_jax.errors import UserError
from earvae_jax.known_models import KnownModel

_WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".pyt", ".bin")  # the first that a stem has is taken
_DIFFUSERS = "diffusion_pytorch_model"
_NOT_WEIGHTS = ("optimizer", "scheduler", "training_args", "scaler", "random_states")
_USUAL = ("model_config.json", "config.json")
_SHARD = re.compile(r"-\d+-of-\d+\.\w+$")  # such as model-00001-of-00004.safetensors
_MOST_NAMED = 6


@dataclasses.dataclass(frozen=True)
class Source:
    """Where weights were found."""

    shown: str  # for messages, and what the checkpoint's provenance says
    weights: Path
    names: Callable[[], Sequence[str]]  # of the files in the same folder
    path_of: Callable[[str], Path]  # of one of these

    @property
    def is_remote(self) -> bool:
        """Whether it came from the Hub."""
        return self.shown.startswith("hf://")


def locate(source: str | Path) -> Source:
    """Finds the weights file of a source, and fetches it if it is on the Hub.

    In a folder or repository this is diffusers' file, in it or in its `vae/`, or else the one weights file.
    The name of a known model stands for its weights on the Hub, unless a file or folder has that name.

    Raises:
      UserError: there is no weights file, or more than one; the address is malformed, or the Hub refuses.
    """
    known = known_models.by_name(source)
    if known is not None:
        return _of_known(known)
    remote = hub_address(source)
    if remote is not None:
        return _on_the_hub(remote)
    path = Path(source)
    if not exists(path):
        raise UserError(f"{path}: no such weights file{known_models.advice(path)}")
    with explaining(path, "cannot be read"):
        if not path.is_dir():
            return _beside(shown(path), path)
        names = [*_files(path), *(f"vae/{name}" for name in _files(path / "vae"))]
    chosen = _weights_among(names, shown(path), "a folder")
    if chosen != path.name:
        logging.info("%s: taking the weights in %s", shown(path), chosen)
    return _beside(shown(path / chosen), path / chosen)


@dataclasses.dataclass(frozen=True)
class Beside:
    """What the JSON files in the folder of the weights say."""

    name: str | None = None  # of the one that is taken
    given: configs.GivenConfig | None = None
    unused: tuple[str, ...] = ()  # a line for each that one might have meant

    def in_words(self) -> str:
        """For an error about the weights."""
        taken = f", with the {self.name} beside it" if self.name else ""
        return taken + "".join(f" ({line})" for line in self.unused)

    def log(self) -> None:
        """Says what was taken and what was not."""
        for line in self.unused:
            logging.info("%s", line)
        if self.name:
            logging.info("taking the config in the %s beside the weights", self.name)


def config_beside(source: Source) -> Beside:
    """The config in a JSON of the same folder, if there is one for an Oobleck.

    A JSON of the weights' own name comes first, then `model_config.json` and `config.json`, then any other.

    Raises:
      UserError: such a JSON is damaged, or several others could be meant.
    """
    stem = source.weights.stem
    names = [name for name in source.names() if name.endswith(".json") and not name.endswith(".index.json")]
    first = [name for name in (f"{stem}.json", f"{stem}_config.json", *_USUAL) if name in names]
    unused: list[str] = []
    for name in first:
        try:
            return Beside(name, configs.read(source.path_of(name)), tuple(unused))
        except configs.NotOobleckError as error:
            unused.append(f"not used: {error}")
    others = {}
    for name in names:
        if name not in first:
            with contextlib.suppress(UserError):
                others[name] = configs.read(source.path_of(name))
    if len({given.config for given in others.values()}) > 1:
        raise UserError(
            f"{source.shown}: several configs lie beside it ({', '.join(others)}): name one with --config"
        )
    chosen = next(iter(others), None)
    return Beside(chosen, others[chosen] if chosen else None, tuple(unused))


def _beside(name: str, path: Path) -> Source:
    return Source(name, path, lambda: _files(path.parent), lambda other: path.with_name(other))


def _files(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with explaining(folder, "cannot be read"):
        return sorted(path.name for path in folder.iterdir() if path.is_file())


def _on_the_hub(remote: HubAddress) -> Source:
    if PurePosixPath(remote.path).suffix not in _WEIGHTS:
        remote = remote.file(_chosen_on_the_hub(remote))
    weights = fetched(remote)
    folder = folder_of(remote.path)

    def names() -> list[str]:
        found = cached_files(remote)
        if not any(name.endswith(".json") for name in _inside(found, folder)):
            try:
                found = listed_files(remote)
            except UserError as error:
                logging.info("%s: its config is not looked for", error)
        return [name for name in _inside(found, folder) if "/" not in name]

    return Source(str(remote), weights, names, lambda name: fetched(_file_beside(remote, name)))


def _of_known(known: KnownModel) -> Source:
    """The weights of a known model, and the JSON that is known to lie beside them."""
    remote = known_address(known)
    logging.info("%s: the licence of its weights is %s", known.name, known.licence)
    names = [] if known.config_file is None else [known.config_file]
    for name in names:  # first, so that weights in the cache have it beside them
        fetched(_file_beside(remote, name))
    weights = fetched(remote)
    return Source(str(remote), weights, lambda: names, lambda name: fetched(_file_beside(remote, name)))


def known_address(known: KnownModel) -> HubAddress:
    """Where the weights of a known model are; messages call them by the model's name."""
    remote = hub_address(known.address)
    assert remote is not None, "an address of the table"
    return remote._replace(text=known.name)


def _file_beside(remote: HubAddress, name: str) -> HubAddress:
    folder = folder_of(remote.path)
    return remote.file(f"{folder}/{name}" if folder else name)


def _chosen_on_the_hub(remote: HubAddress) -> str:
    """The weights file of a repository or of a folder in it, by the names of the files."""
    found = _inside(cached_files(remote), remote.path)
    if not _candidates(found):
        found = _inside(listed_files(remote), remote.path)
    chosen = _weights_among(found, remote.text, "a repository" if not remote.path else "a folder")
    chosen = f"{remote.path}/{chosen}" if remote.path else chosen
    logging.info("%s: taking the weights in %s", remote.text, chosen)
    return chosen


def _inside(names: Iterable[str], folder: str) -> list[str]:
    start = f"{folder}/" if folder else ""
    return [name.removeprefix(start) for name in names if name.startswith(start)]


def _candidates(names: Iterable[str]) -> list[str]:
    """Weights files, one of each stem."""
    best: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(name)
        if path.suffix in _WEIGHTS and not path.name.startswith(_NOT_WEIGHTS):
            stem = str(path.with_suffix(""))
            rank = _WEIGHTS.index(path.suffix)
            if stem not in best or rank < _WEIGHTS.index(PurePosixPath(best[stem]).suffix):
                best[stem] = name
    return sorted(best.values())


def _weights_among(names: Sequence[str], where: str, what: str) -> str:
    found = [name for name in _candidates(names) if not _SHARD.search(name)]
    sharded = [name for name in names if name.endswith(".index.json") or _SHARD.search(name)]
    # What is split in a repository may be the generator beside the autoencoder.
    for choice in (
        [name for name in found if str(PurePosixPath(name).with_suffix("")) == f"vae/{_DIFFUSERS}"],
        [name for name in found if name.startswith(f"vae/{_DIFFUSERS}.")],  # a variant, such as fp16
        [name for name in found if str(PurePosixPath(name).with_suffix("")) == _DIFFUSERS],
        [name for name in found if name.startswith(f"{_DIFFUSERS}.")],
        [name for name in found if name.startswith("vae/")],
        [name for name in found if "/" not in name],
        [name for name in found if "vae" in name.lower() or "autoencoder" in name.lower()],
        found,
    ):
        if any(f"{name}.index.json" in sharded for name in choice):
            break
        if len(choice) == 1:
            return choice[0]
    else:
        sharded = [] if found else sharded
    if sharded:
        raise UserError(
            f"{where}: its weights are split over several files ({sharded[0]}): join them into one"
        )
    if not found:
        raise UserError(f"{where}: {what} without a weights file ({', '.join(_WEIGHTS)})")
    named = ", ".join(found[:_MOST_NAMED]) + (", …" if len(found) > _MOST_NAMED else "")
    raise UserError(f"{where}: {what} with several weights files ({named}): name one")
