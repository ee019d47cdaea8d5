"""The kernels of a compiled program and the bytes of main memory that each reads and writes.

A kernel is an instruction that the device runs by itself: a fusion, a convolution, a copy. It reads its
operands and writes its results once, as far as they lie in main memory. What it slices or updates in place
counts by the part that it touches. A loop's kernels count as often as it turns, a condition's by the branch
that moves most or, where all move the same, has most kernels. Caches are left out: small arrays may come out
of one. A TPU's single numbers are left out too, since its scalar unit computes them beside the kernels.
"""

import dataclasses
import re
from collections.abc import Iterator

from earvae_jax.targets.hlo import ArrayShape, Computation, Instruction, Program
from earvae_jax.targets.loops import turns

# They compute nothing and move nothing.
_FREE = frozenset(
    {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "opt-barrier", "domain"}
    | {"partition-id", "replica-id", "add-dependency", "async-update"}
)
_FREE_CALLS = frozenset({"ConcatBitcast", "AllocateBuffer", "AssumeGatherIndicesInBound"})
_CALLS = frozenset({"while", "call", "conditional", "async-start"})
_SLICES = frozenset({"slice", "dynamic-slice", "gather"})  # of their first operand they read a part
# Of their first operand they write a part; the number of the operand that holds it.
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}
_RENAMES = frozenset({"bitcast", "reshape", "get-tuple-element"})
_EXCHANGES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_NUMBERED = re.compile(r"([.\d]+|\.clone|\.remat)+$")  # what tells apart the fusions of a name


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel and how often a run of the program runs it."""

    name: str
    kind: str  # the opcode, with the library's function or the fusion's name
    bytes: int  # of a single run
    runs: int
    instruction: Instruction = dataclasses.field(repr=False, compare=False)
    computation: Computation = dataclasses.field(repr=False, compare=False)

    @property
    def exchanges(self) -> bool:
        """Whether it exchanges values with other devices."""
        return self.instruction.opcode.startswith(_EXCHANGES)


@dataclasses.dataclass(frozen=True)
class Kind:
    """All kernels of a kind together."""

    kind: str
    kernels: int
    bytes: int


def kernels(program: Program) -> list[Kernel]:
    """Every kernel that a run of the program runs, in order."""
    return list(_kernels(program, program.entry, 1))


def by_kind(found: list[Kernel]) -> list[Kind]:
    """The kernels by their kind, those that move most bytes first."""
    totals: dict[str, list[int]] = {}
    for kernel in found:
        total = totals.setdefault(kernel.kind, [0, 0])
        total[0] += kernel.runs
        total[1] += kernel.runs * kernel.bytes
    kinds = [Kind(kind, *total) for kind, total in totals.items()]
    return sorted(kinds, key=lambda kind: (-kind.bytes, -kind.kernels, kind.kind))


def total_bytes(found: list[Kernel]) -> int:
    """Bytes that a run reads and writes."""
    return sum(kernel.runs * kernel.bytes for kernel in found)


def total_kernels(found: list[Kernel]) -> int:
    """Kernels that a run starts."""
    return sum(kernel.runs for kernel in found)


def loops_of_unknown_length(program: Program) -> int:
    """Loops of which the compiler does not know how often they turn; their kernels count once."""
    return sum(
        1
        for part in program.computations.values()
        for each in part.instructions.values()
        if each.opcode == "while" and turns(program, part, each) is None
    )


def _kernels(program: Program, computation: Computation, runs: int) -> Iterator[Kernel]:
    for instruction in computation.instructions.values():
        opcode = instruction.opcode
        if opcode in _CALLS:
            yield from _called(program, computation, instruction, runs)
        elif not _is_free(instruction):
            moved = _moved(program, computation, instruction)
            yield Kernel(instruction.name, _kind(instruction), moved, runs, instruction, computation)


def _is_free(instruction: Instruction) -> bool:
    if instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
        return True
    if instruction.attribute("custom_call_target") in _FREE_CALLS:
        return True
    return all(array.is_tiled and array.elements <= 1 for array in instruction.arrays)


def _called(
    program: Program, computation: Computation, instruction: Instruction, runs: int
) -> Iterator[Kernel]:
    parts = program.called(instruction)
    if instruction.opcode == "while":
        known = turns(program, computation, instruction)
        runs *= 1 if known is None else known
    elif instruction.opcode == "conditional":
        branches = [list(_kernels(program, part, runs)) for part in parts]
        yield from max(branches, key=lambda branch: (total_bytes(branch), total_kernels(branch)), default=[])
        return
    for part in parts:
        yield from _kernels(program, part, runs)


def _moved(program: Program, computation: Computation, instruction: Instruction) -> int:
    """Bytes of main memory that one instruction reads and writes."""
    opcode = instruction.opcode
    operands = [computation.instructions[name] for name in instruction.operands if _known(computation, name)]
    if opcode in ("copy-start", "slice-start"):  # the result names the operands again, and a semaphore
        result = instruction.arrays[0 if opcode == "copy-start" else 1]
        read = any(array.in_main_memory for operand in operands for array in operand.arrays)
        return result.bytes * (read + result.in_main_memory)
    if opcode == "fusion" and (parts := program.called(instruction)):
        return _moved_by_fusion(program, parts[0], instruction, operands)
    if opcode in _SLICES:
        return 2 * _bytes(instruction) + sum(map(_bytes, operands[1:]))
    if opcode in _UPDATES:
        return _bytes(operands[_UPDATES[opcode]]) + sum(map(_bytes, operands[1:]))
    if opcode.endswith("-start"):
        return 2 * sum(map(_bytes, operands))
    return _bytes(instruction) + sum(map(_bytes, operands))


def _moved_by_fusion(
    program: Program, part: Computation, instruction: Instruction, operands: list[Instruction]
) -> int:
    read = sum(
        min(_bytes(operand), _read(program, part, part.parameters[number]))
        for number, operand in enumerate(operands)
        if number in part.parameters
    )
    return read + sum(_written(part, array, result) for array, result in _results(part, instruction))


def _read(program: Program, part: Computation, parameter: Instruction) -> int:
    """Bytes of a value that a fusion reads: all, or the slices that it takes."""
    if parameter is part.root:
        return _all_bytes(parameter)
    read = 0
    for reader in part.readers[parameter.name]:
        first = reader.operands[0] == parameter.name
        if reader.opcode in _RENAMES:
            read += _read(program, part, reader)
        elif reader.opcode == "fusion" and (inner := program.called(reader)):
            numbers = [number for number, name in enumerate(reader.operands) if name == parameter.name]
            read += sum(_read(program, inner[0], inner[0].parameters[number]) for number in numbers)
        elif reader.opcode in _SLICES and first:
            read += sum(array.bytes for array in reader.arrays)
        elif reader.opcode in _UPDATES and first:
            continue  # what is not updated stays where it is
        else:
            return _all_bytes(parameter)
    return min(read, _all_bytes(parameter))


def _results(part: Computation, instruction: Instruction) -> Iterator[tuple[ArrayShape, Instruction]]:
    """The arrays that a fusion writes, and the instructions in it that make them."""
    root = part.root
    if root.opcode == "tuple":
        made = [part.instructions[name] for name in root.operands if _known(part, name)]
    else:
        made = [root]
    if len(made) == len(instruction.arrays):
        yield from zip(instruction.arrays, made, strict=True)
    else:  # nested tuples
        for array in instruction.arrays:
            yield array, root


def _written(part: Computation, array: ArrayShape, made: Instruction) -> int:
    while made.opcode in _RENAMES and made.operands and _known(part, made.operands[0]):
        made = part.instructions[made.operands[0]]
    if not array.in_main_memory:
        return 0
    if made.opcode in _UPDATES:
        update = made.operands[_UPDATES[made.opcode]]
        if _known(part, update):
            return min(array.bytes, _all_bytes(part.instructions[update]))
    return array.bytes


def _bytes(instruction: Instruction) -> int:
    """Bytes of a result in main memory."""
    return sum(array.bytes for array in instruction.arrays if array.in_main_memory)


def _all_bytes(instruction: Instruction) -> int:
    # Inside a fusion layouts name no memory: the fusion's own operands and results do.
    return sum(array.bytes for array in instruction.arrays)


def _known(computation: Computation, name: str) -> bool:
    return name in computation.instructions


def _kind(instruction: Instruction) -> str:
    target = instruction.attribute("custom_call_target")
    if target is not None:
        return f"{instruction.opcode}: {target}"
    if instruction.opcode == "fusion":
        return f"fusion: {_NUMBERED.sub('', instruction.name)}"
    return instruction.opcode
