"""What flags of commands may be, for argparse."""

import argparse
import math
from collections.abc import Callable
from typing import TypeVar

_Number = TypeVar("_Number", int, float)


def positive(kind: type[_Number], of: str = "") -> Callable[[str], _Number]:
    """A finite number above zero; `of` says of what, for the message: "seconds"."""

    def parse(text: str) -> _Number:
        try:
            value = kind(text)
        except ValueError:
            value = kind(0)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not a positive number{of and f' of {of}'}")
        return value

    return parse


def seed(text: str) -> int:
    """A seed of JAX."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not is_seed(value):
        raise argparse.ArgumentTypeError(f"{text!r} has more than 64 bits")
    return value


def is_seed(value: int) -> bool:
    """Whether JAX takes a number for a seed."""
    return -(2**63) <= value < 2**63
