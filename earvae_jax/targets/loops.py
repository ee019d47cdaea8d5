"""How often a loop of a compiled program turns.

A GPU's compiler writes it beside the loop. A TPU's does not: there it follows from the counter that the
loop's condition compares with a constant, where it starts, and what each turn adds.
"""

import re

from earvae_jax.targets.hlo import Computation, Instruction, Program

_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_PASSED_ON = frozenset({"copy", "bitcast", "convert"})  # the same number


def turns(program: Program, computation: Computation, loop: Instruction) -> int | None:
    """How often a `while` of this computation turns; None where that is not known."""
    known = _KNOWN.search(loop.attributes)
    if known:
        return int(known[1])
    condition, body = (program.computations.get(_name(loop, part)) for part in ("condition", "body"))
    if condition is None or body is None:
        return None
    test = condition.root
    if test.opcode != "compare" or test.attribute("direction") != "LT":
        return None
    counter, end = (_source(condition, name) for name in test.operands)
    place = _place(counter)
    start = _item(computation, _source(computation, loop.operands[0]), place)
    step = _added(body, place)
    values = [_value(end), _value(start), step]
    if any(value is None for value in values):
        return None
    last, first, each = (value for value in values if value is not None)
    return max(0, -(-(last - first) // each)) if each > 0 else None


def _name(instruction: Instruction, attribute: str) -> str:
    return (instruction.attribute(attribute) or "").lstrip("%")


def _source(computation: Computation, name: str) -> Instruction | None:
    """The instruction of this name, or the one whose value it hands on."""
    found = computation.instructions.get(name)
    while found is not None and found.opcode in _PASSED_ON:
        found = computation.instructions.get(found.operands[0])
    return found


def _place(instruction: Instruction | None) -> int | None:
    """Which item of a tuple it is."""
    if instruction is None or instruction.opcode != "get-tuple-element":
        return None
    return int(instruction.attribute("index") or 0)


def _item(computation: Computation, packed: Instruction | None, place: int | None) -> Instruction | None:
    if packed is None or packed.opcode != "tuple" or place is None or place >= len(packed.operands):
        return None
    return _source(computation, packed.operands[place])


def _value(instruction: Instruction | None) -> int | None:
    if instruction is None or instruction.opcode != "constant" or not instruction.operands:
        return None
    try:
        return int(instruction.operands[0])
    except ValueError:
        return None


def _added(body: Computation, place: int | None) -> int | None:
    """What a turn adds to the counter at this place."""
    result = _item(body, body.root, place)
    if result is None or result.opcode != "add":
        return None
    operands = [_source(body, name) for name in result.operands]
    values = [value for operand in operands if (value := _value(operand)) is not None]
    counters = [operand for operand in operands if _place(operand) == place]
    return values[0] if len(values) == len(counters) == 1 else None
