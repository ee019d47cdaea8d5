"""Reads the text of a compiled program (HLO) into computations, instructions and arrays.

The text is what `jax.stages.Compiled.as_text` gives or, before optimization, `Lowered.as_text("hlo")`. Its
words are described at https://openxla.org/xla/operation_semantics and, for layouts, at
https://openxla.org/xla/tiled_layout.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

# Bits of a value of each type that is not named by its width.
_BITS = {"pred": 8, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+)( \(.*\) -> .*)? \{$")
_FIRST = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = ")
_MEMORY_SPACE = re.compile(r"S\((\d+)\)")
_TILE = re.compile(r"T\(([\d,]+)\)")


@dataclasses.dataclass(frozen=True)
class ArrayShape:
    """One array of an instruction: its type, its sizes, and where and how it lies in memory."""

    dtype: str
    sizes: tuple[int, ...]
    layout: str = ""

    @property
    def elements(self) -> int:
        """How many values it has, without what the layout adds."""
        return math.prod(self.sizes)

    @property
    def in_main_memory(self) -> bool:
        """Whether it lies in the memory that all of the device shares, and not in an on-chip one."""
        found = _MEMORY_SPACE.search(self.layout)
        return found is None or found[1] == "0"

    @property
    def is_tiled(self) -> bool:
        """Whether it lies in tiles, as on a TPU."""
        return _TILE.search(self.layout) is not None

    @property
    def bytes(self) -> int:
        """Bytes that it takes, with those by which a TPU fills its tiles up."""
        return -(-self._padded_elements * _bits(self.dtype) // 8)

    @property
    def _padded_elements(self) -> int:
        order, _, rest = self.layout.partition(":")
        tile = _TILE.search(rest)
        if tile is None or not self.sizes:
            return self.elements
        # Dimensions in a layout stand with the one that changes fastest first, in a tile they stand last.
        places = [int(place) for place in order.split(",") if place]
        sizes = [self.sizes[place] for place in places] or list(self.sizes[::-1])
        for place, step in enumerate(reversed(_numbers(tile[1]))):
            if place < len(sizes):
                sizes[place] = -(-sizes[place] // step) * step
        return math.prod(sizes)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction of a computation."""

    name: str
    opcode: str
    shape: str  # of the result, as text
    operands: tuple[str, ...]  # names of instructions of the same computation
    attributes: str  # all that follows the operands
    is_root: bool = False

    @functools.cached_property
    def arrays(self) -> tuple[ArrayShape, ...]:
        """The arrays of the result, those of tuples in a row."""
        return tuple(arrays(self.shape))

    def attribute(self, name: str) -> str | None:
        """The text of an attribute such as `dim_labels` or `window`, without braces and quotes."""
        found = re.search(rf"\b{name}=(?:\{{([^{{}}]*)\}}|\"([^\"]*)\"|([^\s,{{}}]+))", self.attributes)
        return None if found is None else next(text for text in found.groups() if text is not None)

    @property
    def called(self) -> tuple[str, ...]:
        """The computations that it runs: a fusion's, a loop's body, the branches of a condition."""
        names = [self.attribute(key) for key in ("calls", "to_apply", "body", "condition")]
        branches = self.attribute("branch_computations") or ""
        two = [self.attribute(key) for key in ("true_computation", "false_computation")]
        return tuple(name.strip().lstrip("%") for name in [*names, *branches.split(","), *two] if name)


@dataclasses.dataclass(frozen=True)
class Computation:
    """A list of instructions in the order in which they run."""

    name: str
    instructions: Mapping[str, Instruction]

    @functools.cached_property
    def root(self) -> Instruction:
        """The instruction whose result is the computation's."""
        roots = [each for each in self.instructions.values() if each.is_root]
        return roots[0] if roots else list(self.instructions.values())[-1]

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """The parameters by their number."""
        found = (each for each in self.instructions.values() if each.opcode == "parameter")
        return {int(each.operands[0]): each for each in found}

    @functools.cached_property
    def readers(self) -> Mapping[str, list[Instruction]]:
        """Who reads each instruction's result."""
        found: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for each in self.instructions.values():
            for operand in each.operands:
                if operand in found:
                    found[operand].append(each)
        return found


@dataclasses.dataclass(frozen=True)
class Program:
    """All computations of a compiled program; the entry runs first."""

    computations: Mapping[str, Computation]
    entry: Computation

    @classmethod
    def parse(cls, text: str) -> "Program":
        """Reads the text of a program.

        Raises:
          ValueError: it has no entry computation.
        """
        computations: dict[str, Computation] = {}
        entry, name, instructions = "", "", dict[str, Instruction]()
        for line in text.splitlines():
            if not name:
                header = _HEADER.match(line)
                if header:
                    name, instructions = header[2], {}
                    entry = name if header[1] else entry
            elif line.startswith("}"):
                computations[name] = Computation(name, instructions)
                name = ""
            else:
                instruction = _instruction(line)
                if instruction is not None:
                    instructions[instruction.name] = instruction
        if entry not in computations:
            raise ValueError("the text has no ENTRY computation: it is not that of a compiled program")
        return cls(computations, computations[entry])

    def called(self, instruction: Instruction) -> list[Computation]:
        """The computations that an instruction runs."""
        return [self.computations[name] for name in instruction.called if name in self.computations]


def arrays(shape: str) -> Iterator[ArrayShape]:
    """The arrays that a shape names, such as `(bf16[1,8,128]{2,1,0}, u8[0]{0})`."""
    for dtype, sizes, layout in _ARRAY.findall(shape):
        yield ArrayShape(dtype, _numbers(sizes.replace("<=", "")), layout)


def _instruction(line: str) -> Instruction | None:
    start = _FIRST.match(line)
    if start is None:
        return None
    rest = line[start.end() :]
    # A tuple's shape has spaces; those of arrays have none.
    cut = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    shape, rest = rest[:cut], rest[cut:].lstrip()
    opening = rest.find("(")
    if cut <= 0 or opening < 0:
        return None
    closing = _closing(rest, opening)
    inside = rest[opening + 1 : closing]
    opcode = rest[:opening]
    return Instruction(start[1], opcode, shape, _names(inside), rest[closing + 1 :], "ROOT " in start[0])


def _names(operands: str) -> tuple[str, ...]:
    """The names in a list such as `%a, /*index=1*/%b`; a parameter has its number there."""
    if "%" in operands:
        return tuple(re.findall(r"%([\w.\-]+)", operands))
    return tuple(re.findall(r"(?:^|, )(?:/\*.*?\*/)?([\w.\-]+)", operands))


def _closing(text: str, opening: int) -> int:
    """The place of the parenthesis that closes the one at `opening`."""
    depth = 0
    for found in re.finditer(r"[()]", text[opening:]):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return opening + found.start()
    return len(text)


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    width = re.search(r"\d+", dtype)  # bf16, s32, c64, f8e4m3fn
    return int(width[0]) if width else 32


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)
