"""What a compiled program shows without being run: its memory, kernels, bytes and operations."""

import dataclasses
from typing import Any

import jax

from earvae_jax.targets import products, traffic
from earvae_jax.targets.hlo import Program


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of a device that a program takes while it runs."""

    arguments: int
    outputs: int
    aliased: int  # outputs that take the place of arguments
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """All of it together."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code

    @property
    def besides_arguments(self) -> int:
        """What comes on top of the arguments."""
        return self.total - self.arguments


@dataclasses.dataclass(frozen=True)
class Reading:
    """A compiled program in figures, for each of its devices."""

    memory: Memory
    kernels: int  # that a run starts
    bytes: int  # that its kernels read and write in main memory
    exchanged: int  # that it exchanges with other devices, a part of `bytes`
    operations: dict[str, float]  # of its matrix products, by kind (`products.operations`)
    kinds: tuple[traffic.Kind, ...]  # the kernels by kind, those that move most first
    unknown_loops: int  # loops whose number of turns is unknown; they count once


def read(compiled: jax.stages.Compiled) -> Reading:
    """Reads a compiled program. It need not be one for a device of this machine."""
    stats: Any = compiled.memory_analysis()
    memory = Memory(
        arguments=stats.argument_size_in_bytes,
        outputs=stats.output_size_in_bytes,
        aliased=stats.alias_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
    )
    return read_text(compiled.as_text(), memory)


def read_text(text: str | None, memory: Memory) -> Reading:
    """Reads the text of a compiled program.

    Raises:
      ValueError: there is no text, or it is not that of a compiled program.
    """
    program = Program.parse(text or "")
    found = traffic.kernels(program)
    return Reading(
        memory=memory,
        kernels=traffic.total_kernels(found),
        bytes=traffic.total_bytes(found),
        exchanged=traffic.total_bytes([kernel for kernel in found if kernel.exchanges]),
        operations=products.operations(program),
        kinds=tuple(traffic.by_kind(found)),
        unknown_loops=traffic.loops_of_unknown_length(program),
    )
