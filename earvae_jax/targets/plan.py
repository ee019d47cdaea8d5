"""What a call would run on an accelerator: its programs, what lies in memory meanwhile, and what can grow."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax


@dataclasses.dataclass(frozen=True)
class Program:
    """One program, not compiled yet."""

    name: str  # for people, with its shapes; no two of a plan are equal
    lower: Callable[[], jax.stages.Lowered]
    runs: int = 1  # how often the call runs it
    held: int = 0  # bytes of its arguments that are in `Plan.resident`
    beside: int = 0  # bytes of each device that others take meanwhile, such as the batch that comes next


@dataclasses.dataclass(frozen=True)
class Growth:
    """What of a call could be larger, until the memory is full."""

    what: str  # the flag or the key of the config
    now: int
    step: int  # it is a multiple of this
    least: int  # the smallest that the call allows
    programs: Callable[[int], Sequence[Program]]  # what runs with so many


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a call would run."""

    subject: str  # the model and how it is computed
    programs: Sequence[Program]
    resident: Mapping[str, int]  # bytes of each device that are taken all the time, by what takes them
    # What to look for, in this order, until something fits; only where the smallest of one is too large the
    # next is looked at.
    growths: Sequence[Growth] = ()
