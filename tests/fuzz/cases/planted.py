"""Faults that are there on purpose, under negative numbers: the campaign must find each."""

import os
import pickle
import time
from pathlib import Path

from earvae_jax.errors import UserError

from .domains import Case
from .pickles import PAYLOAD


def _traceback():
    raise KeyError("bad input")


def _several_lines():
    raise UserError("in/odd.json: wrong\nhere and there")


def _no_name():
    raise UserError("something is wrong")


def _escape():
    Path("beside.txt").write_text("x", encoding="utf-8")


def _far_escape():
    Path("..", "..", "..", "far.txt").write_text("x", encoding="utf-8")


def _payload():
    class Payload:
        def __reduce__(self):
            return os.mkdir, (PAYLOAD,)

    pickle.loads(pickle.dumps(Payload()))


def _program():
    os.system("true")


def _noise():
    os.write(2, b"a library speaks\n")


def _half_written():
    Path("output").mkdir()
    Path("output", ".x.wav.partial").touch()


def _memory():
    memory = bytearray(2 << 30)
    memory[:: 1 << 12] = b"x" * len(memory[:: 1 << 12])


def _result():
    Path("output").mkdir()
    Path("output", "x").touch()


def _line():
    raise UserError("in/odd.json: wrong")


def _crash():
    os.abort()


def _hang():
    time.sleep(1000)


PLANTED = {
    function.__name__.strip("_"): Case(function.__name__, call=function, names=("in/odd.json",))
    for function in (
        _traceback,
        _several_lines,
        _no_name,
        _escape,
        _far_escape,
        _payload,
        _program,
        _noise,
        _half_written,
        _memory,
        _result,
        _line,
        _crash,
        _hang,
    )
}


def number_of(name: str) -> int:
    """The case number of a planted fault."""
    return -1 - list(PLANTED).index(name)


def make(number: int) -> Case:
    """The planted case of a negative number."""
    return list(PLANTED.values())[-1 - number]
