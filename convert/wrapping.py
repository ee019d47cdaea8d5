"""Finds the autoencoder among the tensors of a file: which prefix its keys have, and which copy to take."""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from earvae_jax.convert.foreign.averages import RAW_OF_LIGHTNING
from earvae_jax.convert.foreign.kinds import kind_of
from earvae_jax.errors import UserError

_FIRST = r"(?:layers\.0|block\.0\.res_unit1\.conv1)\.(?:weight|weight_[gv]|bias|parametrizations\..*)"
_ENCODER = re.compile(rf"((?:.*\.)?)encoder\.{_FIRST}")
_DECODER = re.compile(rf"((?:.*\.)?)decoder\.{_FIRST}")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")
_SNAKE = re.compile(r"(layers\.\d+\.layers\.\d+|res_unit1)\..*alpha$")
_ONE_HALF = re.compile(rf"(?:.*\.)?{_FIRST}")
# Words of a name that say that its weights are an average over training.
_AVERAGE = frozenset(("ema", "averaged", "average", "avg", "swa", "shadow", "polyak"))
# Words of names around a model that say nothing about which model it is.
_GENERAL = frozenset(
    ("state", "dict", "model", "online", "raw", "current", "params", "weights", "net", "network")
)


class Chosen(NamedTuple):
    """Where the autoencoder is."""

    prefix: str  # of its keys
    left: tuple[str, ...]  # prefixes of other copies of it, which are not taken
    nested: tuple[str, ...]  # prefixes of all other copies, which may begin with the chosen one's
    halves: tuple[str, ...]  # prefixes under which there is an encoder or a decoder alone
    is_average: bool


def holds_a_model(keys: Iterable[str]) -> bool:
    """Whether both halves of some autoencoder are there."""
    return bool(_prefixes(_ENCODER, keys) & _prefixes(_DECODER, keys))


def choose(keys: Iterable[str], same: Callable[[str, str], bool]) -> Chosen:
    """Chooses the averaged weights if there are some, then the shortest prefix.

    Args:
      keys: all keys of the file.
      same: whether the tensors under two prefixes are equal.

    Raises:
      UserError: there is no autoencoder, a half of one, or more than one; the message does not name the file.
    """
    keys = list(keys)
    encoders, decoders = _prefixes(_ENCODER, keys), _prefixes(_DECODER, keys)
    whole = encoders & decoders
    kind = kind_of(keys)
    if not whole:
        if kind is None and (encoders or decoders):
            if encoders and decoders:
                apart = " and ".join(
                    f"{half} under {min(prefixes)!r}"
                    for half, prefixes in (("an encoder", encoders), ("a decoder", decoders))
                )
                raise UserError(f"holds {apart}: a model has both under one name; put them together")
            half, other = ("an encoder", "decoder") if encoders else ("a decoder", "encoder")
            raise UserError(f"holds {half} alone: its {other} is missing, and a model needs both")
        if kind is None and any(map(_ONE_HALF.fullmatch, keys)) and any(map(_SNAKE.search, keys)):
            raise UserError(
                "holds an encoder or a decoder alone, without its name in the keys: a model needs both, "
                "under encoder. and decoder."
            )
        told = f"; it looks like {kind}" if kind else ""
        raise UserError(
            f"holds no εar-VAE weights, nor those of another Oobleck autoencoder: none of its {len(keys)} "
            f"tensors is named encoder.layers.0.…{told}"
        )
    of_lightning = any(key.startswith(RAW_OF_LIGHTNING) for key in keys)

    def averages(prefix: str) -> int:
        return _averages(prefix) + (of_lightning and prefix.startswith("state_dict."))

    ranked = sorted(whole, key=lambda prefix: (-averages(prefix), len(prefix), prefix))
    best = ranked[0]
    others = [prefix for prefix in ranked[1:] if not same(best, prefix)]
    models = [_model(prefix) for prefix in (best, *others)]
    longest = max(models, key=len)
    several = any(longest[len(longest) - len(model) :] != model for model in models)
    if several or (others and not averages(best)):
        named = " and ".join(repr(prefix) for prefix in sorted((best, *others)))
        raise UserError(f"holds more than one model, under {named}: save the one you want alone")
    _refuse_other_bottlenecks(best, keys)
    nested = tuple(prefix for prefix in ranked[1:] if prefix.startswith(best))
    halves = tuple(sorted(encoders ^ decoders))
    return Chosen(best, tuple(others), nested, halves, averages(best) > 0)


def _refuse_other_bottlenecks(prefix: str, keys: list[str]) -> None:
    if any(key.startswith(f"{prefix}quantizer.") for key in keys):
        raise UserError("holds the Descript audio codec (DAC) as transformers has it, not an Oobleck")
    if any(key.startswith(f"{prefix}bottleneck.") for key in keys):
        raise UserError("holds an Oobleck with another bottleneck than a VAE, which has no weights")


def _prefixes(half: re.Pattern[str], keys: Iterable[str]) -> set[str]:
    return {match[1] for key in keys if (match := half.fullmatch(key))}


def is_average(name: str) -> bool:
    """Whether a name says that its weights are an average over training."""
    return not _AVERAGE.isdisjoint(_words(name))


def _words(part: str) -> list[str]:
    """The words of a name, which underscores, hyphens, digits or capitals part; a number is one too."""
    return [word.lower() for word in _WORD.findall(part)]


def _averages(prefix: str) -> int:
    """How many names of a prefix say that it is an average."""
    return sum(is_average(part) for part in prefix.split("."))


def _model(prefix: str) -> tuple[str, ...]:
    """The prefix without what says that it is an average or a model: the same for copies of one model."""
    parts = []
    for part in filter(None, prefix.split(".")):
        words = [word for word in _words(part) if word not in _AVERAGE and word not in _GENERAL]
        if words:
            parts.append("_".join(words))
    return tuple(parts)
