"""The process that compiles: `python -m earvae_jax.targets.worker`, which `compiling.py` starts.

It reads a request from standard input and writes an event a line to standard output, so that who started it
sees how far it is, and what was ready when a compiler hung or broke down. What compilers print goes to
standard error.
"""

import argparse
import dataclasses
import importlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from earvae_jax.borders import explained, one_line
from earvae_jax.errors import UserError, is_out_of_memory
from earvae_jax.system.compilation_cache import OFF, enable_compilation_cache
from earvae_jax.targets.catalogue import Target
from earvae_jax.targets.devices import described, usable_memory
from earvae_jax.targets.fitting import largest
from earvae_jax.targets.plan import Growth, Plan, Program
from earvae_jax.targets.reading import Reading, read

Emit = Callable[[Mapping[str, Any]], None]
# What a TPU's compiler says of a program that is too large.
_USED = re.compile(r"Used ([\d.]+)([KMG]) of")
_TOO_LARGE = sys.maxsize
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def main() -> None:
    """Works on the request at standard input; what goes wrong is an event too."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # compilers print to standard output as well

    def emit(event: Mapping[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    _tell(emit)
    try:
        work(json.load(sys.stdin), emit)
        emit({"event": "end"})
    except UserError as error:
        emit({"event": "error", "message": str(error), "foreseen": True})
    except Exception as error:  # whatever it is, who started this process tells it
        logging.getLogger("absl").debug("", exc_info=True)
        emit({"event": "error", "message": explained(error), "foreseen": False})


def work(request: Mapping[str, Any], emit: Emit, devices: Sequence[jax.Device] | None = None) -> None:
    """Compiles the programs of a request one after the other.

    Args:
      request: `target`, the `plan` as MODULE:FUNCTION with its `arguments`, the programs to `skip` by name,
        and whether to look for the `largest` size.
      devices: in place of the target's.
    """
    enable_compilation_cache(OFF)  # the time to compile is told
    target = Target.parse(request["target"])
    module, _, function = request["plan"].partition(":")
    plan: Plan = getattr(importlib.import_module(module), function)(
        argparse.Namespace(**request["arguments"]), devices or described(target)
    )
    emit(
        {
            "event": "plan",
            "subject": plan.subject,
            "resident": dict(plan.resident),
            "programs": [{"name": program.name, "runs": program.runs} for program in plan.programs],
        }
    )
    compiler = _Compiler(plan, emit)
    for program in plan.programs:
        if program.name not in request["skip"]:
            compiler.memory(program)
    if request["largest"]:
        for growth in plan.growths:
            if _look_for_largest(growth, compiler, usable_memory(target.accelerator), emit):
                break


class _Compiler:
    """Compiles programs, tells what they show, and remembers how much memory they take."""

    def __init__(self, plan: Plan, emit: Emit):
        self._resident, self._emit = sum(plan.resident.values()), emit
        self._known: dict[str, int | None] = {}
        self.compiled = 0

    def memory(self, program: Program) -> int | None:
        """Bytes of a device while the program runs, all that is resident included; None if it is refused."""
        if program.name not in self._known:
            self._emit({"event": "begin", "program": program.name})
            self._known[program.name] = self._compiled(program)
        return self._known[program.name]

    def _compiled(self, program: Program) -> int | None:
        started = time.monotonic()
        try:
            lowered = program.lower()
            traced = time.monotonic() - started
            reading = read(lowered.compile())
        except jax.errors.JaxRuntimeError as error:
            too_large = is_out_of_memory(error)
            event = {"event": "failed", "program": program.name, "too_large": too_large}
            self._emit(event | {"message": one_line(str(error))})
            used = _USED.search(str(error))
            return int(float(used[1]) * _UNITS[used[2]]) if used else None
        self.compiled += 1
        seconds = time.monotonic() - started
        told = {
            "held": program.held,
            "beside": program.beside,
            "trace_seconds": traced,
            "compile_seconds": seconds - traced,
        }
        self._emit({"event": "compiled", "program": program.name, **told, "reading": _values(reading)})
        return self._resident + program.beside + max(0, reading.memory.total - program.held)


def _look_for_largest(growth: Growth, compiler: _Compiler, limit: int, emit: Emit) -> bool:
    """Whether some size fits; tells which, and how many compilations that took."""
    before = compiler.compiled
    heaviest: int | None = None  # which of the programs takes most: the same one at every size

    def memory(size: int) -> int | None:
        nonlocal heaviest
        programs = growth.programs(size)
        if heaviest is not None:
            return compiler.memory(programs[heaviest])
        found = [compiler.memory(program) or _TOO_LARGE for program in programs]
        heaviest = found.index(max(found))
        return None if found[heaviest] == _TOO_LARGE else found[heaviest]

    found = largest(limit, memory, now=growth.now, step=growth.step, least=growth.least)
    emit(
        {
            "event": "largest",
            "what": growth.what,
            "size": found.size,
            "sizes_compiled": list(found.compiled),
            "compilations": compiler.compiled - before,
        }
    )
    return found.size > 0


def _values(reading: Reading) -> dict[str, Any]:
    memory = {**dataclasses.asdict(reading.memory), "total": reading.memory.total}
    return {**dataclasses.asdict(reading), "memory": memory}


def _tell(emit: Emit) -> None:
    """Hands on what this package logs; other lines go to standard error."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            emit({"event": "log", "level": record.levelno, "message": record.getMessage()})

    logger = logging.getLogger("absl")
    logger.handlers, logger.propagate = [Handler()], False
    logger.setLevel(logging.DEBUG if os.environ.get("EARVAE_DEBUG") else logging.INFO)


if __name__ == "__main__":
    main()
