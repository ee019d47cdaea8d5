"""Which domain a case number belongs to, and what a case is."""

import dataclasses
import importlib
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .corpus import Seeds

# A case's domain by the last digits of its number, so that every part of a campaign has all of them.
_SHARES = {"weights": 7, "configs": 5, "commands": 3, "latents": 2, "audio": 3}
_TURNS = [name for name, share in _SHARES.items() for _ in range(share)]
NAMES = tuple(_SHARES)


@dataclasses.dataclass(frozen=True)
class Case:
    """One input and what is done with it, in the working directory in which it was made.

    Attributes:
      made: what was done to the input, for a person.
      words: a command line without `earvae`; or
      call: a call of the library.
      names: a refusal names one of these; empty: no claim.
      free: the case names outputs itself, anywhere in its folder.
    """

    made: str
    words: Sequence[str] | None = None
    call: Callable[[], object] | None = None
    names: tuple[str, ...] = ()
    free: bool = False


def domain_of(number: int) -> str:
    """The domain of a case number; negative ones are faults that are there on purpose."""
    return (
        "planted" if number < 0 else _TURNS[number * 7 % len(_TURNS)]
    )  # 7 has no factor in common with 20: a mixed order


def make(number: int, seed: int, seeds: "Seeds") -> Case:
    """Writes the input of a case into the working directory."""
    module = importlib.import_module(f".{domain_of(number)}", __package__)
    return module.make(number) if number < 0 else module.make(random.Random(f"{seed}/{number}"), seeds)
