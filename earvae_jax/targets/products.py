"""The operations of a compiled program's matrix products: convolutions and dot products.

Each product of two numbers counts as two operations, and every tap of a convolution counts, at the edges too.
Everything else that a program computes is left out: it waits for memory.
"""

import collections
import json
import math
import re
from collections.abc import Iterator, Sequence

from earvae_jax.targets.hlo import ArrayShape, Computation, Instruction, Program
from earvae_jax.targets.traffic import kernels

# cuDNN's convolutions: which of (operands…, result) has the outputs' shape, and which is the kernel.
_RESULT = -1
_CUDNN = {
    "__cudnn$convForward": (_RESULT, 1),
    "__cudnn$convBiasActivationForward": (_RESULT, 1),
    "__cudnn$convForwardGraph": (_RESULT, 1),
    "__cudnn$convBackwardInput": (0, 1),
    "__cudnn$convBackwardFilter": (1, _RESULT),
}
_CUBLAS = frozenset({"__cublas$gemm", "__cublas$lt$matmul"})


def operations(program: Program) -> dict[str, float]:
    """Operations of a run, by the kind of product: `bf16`, `f16`, `tf32` (float32 by default) or `f32`."""
    found: dict[str, float] = collections.defaultdict(float)
    for kernel in kernels(program):
        for computation, instruction in _inside(program, kernel.computation, kernel.instruction):
            counted = _operations(computation, instruction)
            if counted:
                found[_kind(computation, instruction)] += kernel.runs * counted
    return dict(found)


def _inside(
    program: Program, computation: Computation, instruction: Instruction
) -> Iterator[tuple[Computation, Instruction]]:
    """An instruction, or all of a fusion, with those that the fusion holds in turn."""
    if instruction.opcode != "fusion":
        yield computation, instruction
        return
    for part in program.called(instruction):
        for each in part.instructions.values():
            yield from _inside(program, part, each)


def _operations(computation: Computation, instruction: Instruction) -> float:
    """Operations of one instruction; 0 if it is no matrix product."""
    target = instruction.attribute("custom_call_target") or ""
    if instruction.opcode == "convolution":
        return _convolution(computation, instruction, (_RESULT, 1))
    if target in _CUDNN:
        return _convolution(computation, instruction, _CUDNN[target])
    if instruction.opcode == "dot":
        places = instruction.attribute("lhs_contracting_dims") or ""
        return _dot(computation, instruction, [int(place) for place in places.split(",") if place])
    if target in _CUBLAS:
        return _dot(computation, instruction, _contracted_by_cublas(instruction))
    return 0.0


def _convolution(computation: Computation, instruction: Instruction, roles: tuple[int, int]) -> float:
    """Two operations for each output and each number of the kernel that it meets."""
    output, kernel = (_array(computation, instruction, role) for role in roles)
    labels = instruction.attribute("dim_labels")
    if output is None or kernel is None or labels is None:
        return 0.0
    of_kernel = labels.split("_")[1].split("->")[0]
    taps = kernel.elements / kernel.sizes[of_kernel.index("o")]
    # An input with zeros between its values (the gradient of a stride) meets a part of the taps.
    window = instruction.attribute("window") or ""
    dilated = re.search(r"lhs_dilate=([\dx]+)", window)
    zeros = math.prod(int(step) for step in dilated[1].split("x")) if dilated else 1
    return 2.0 * output.elements * taps / zeros


def _dot(computation: Computation, instruction: Instruction, contracted: Sequence[int]) -> float:
    output, left = (_array(computation, instruction, role) for role in (_RESULT, 0))
    if output is None or left is None:
        return 0.0
    return 2.0 * output.elements * math.prod(left.sizes[place] for place in contracted)


def _contracted_by_cublas(instruction: Instruction) -> list[int]:
    found = re.search(r'"dot_dimension_numbers":(\{[^{}]*\})', instruction.attributes)
    places = json.loads(found[1]).get("lhs_contracting_dimensions", []) if found else []
    return [int(place) for place in places]


def _array(computation: Computation, instruction: Instruction, role: int) -> ArrayShape | None:
    if role == _RESULT:
        source: Instruction | None = instruction
    else:
        names = instruction.operands
        source = computation.instructions.get(names[role]) if role < len(names) else None
    return source.arrays[0] if source is not None and source.arrays else None


def _kind(computation: Computation, instruction: Instruction) -> str:
    """The kind of units that a product can take."""
    array = _array(computation, instruction, 0)
    dtype = "f32" if array is None else array.dtype
    if dtype != "f32":
        return dtype
    exact = "highest" in (instruction.attribute("operand_precision") or "") or (
        '"operand_precision":["HIGHEST"' in instruction.attributes
    )
    return "f32" if exact else "tf32"
