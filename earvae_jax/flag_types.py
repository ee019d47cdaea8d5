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
