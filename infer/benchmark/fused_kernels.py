"""Compiles the fused residual units: `python -m earvae_jax.infer.benchmark.fused_kernels TARGET`.

It prints how often a unit reads or writes its activation, and what a GPU's compiler says of each kernel: the
registers of a thread, those that are spilled, and the shared memory of a program. The device need not be
there; its compiler must be, as for `--compile-for`. Nothing is run.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from earvae_jax.command import run_program
from earvae_jax.errors import UserError
from earvae_jax.infer.engine.compiled import DTYPES
from earvae_jax.infer.formulations.fused import gpu, tpu
from earvae_jax.infer.formulations.fused.weights import SnakeWeights, UnitWeights
from earvae_jax.model.layers import Extent
from earvae_jax.model.oobleck import RESIDUAL_WIDTH
from earvae_jax.targets.catalogue import Target
from earvae_jax.targets.devices import check_compiler, described, process_variables
from earvae_jax.targets.reading import read

_PROGRAM = "python -m earvae_jax.infer.benchmark.fused_kernels"
_STEPS = 1 << 17  # time steps of the window; the bytes for a value do not depend on it
_DILATION = 9
_WIDTHS = {"cuda": (64, 128, 256), "tpu": (128, 256, 512)}
_DTYPES = {"cuda": ("bfloat16", "tf32"), "tpu": ("bfloat16", "float32")}
_INSIDE = "EARVAE_FUSED_KERNELS_DUMP"  # set in the process that compiles: where XLA puts its files


@dataclasses.dataclass(frozen=True)
class Row:
    """A kernel as it was compiled; None where a target's compiler does not tell."""

    channels: int
    dtype: str
    writes: str
    passes: float  # over the activation
    seconds: float  # to compile
    registers: int | None = None  # of a thread
    spilled: int | None = None  # bytes of them that lie in memory
    shared_memory: int | None = None  # bytes of a program of the grid
    tensor_cores: bool | None = None


def main(words: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__)
    parser.add_argument("target", help="h100, a100, v5e, v5p or v6e")
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    arguments = parser.parse_args(words)
    target = Target.parse(arguments.target)
    check_compiler(target.accelerator)
    if _INSIDE not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            raise SystemExit(_in_another_process(target, folder, sys.argv[1:] if words is None else words))
    rows = [
        _compile(target, width, dtype, last=last)
        for dtype in _DTYPES[target.accelerator.platform]
        for width in _WIDTHS[target.accelerator.platform]
        if _kernels(target).takes(width, jnp.dtype(DTYPES[dtype][0]))
        for last in (False, True)
    ]
    shown = json.dumps([dataclasses.asdict(row) for row in rows]) if arguments.json else _table(target, rows)
    sys.stdout.write(f"{shown}\n")


def _in_another_process(target: Target, folder: str, words: Sequence[str]) -> int:
    """The compilers want an environment that stands before JAX starts."""
    variables = process_variables(target)
    variables["XLA_FLAGS"] = f"{variables.get('XLA_FLAGS', '')} --xla_dump_to={folder}".strip()
    environment = {**os.environ, **variables, _INSIDE: folder}
    return subprocess.run([sys.executable, *_PROGRAM.split()[1:], *words], env=environment).returncode


def _kernels(target: Target) -> Any:
    return tpu if target.accelerator.gpu is None else gpu


def _compile(target: Target, channels: int, dtype: str, *, last: bool) -> Row:
    """One unit in the middle of a level, or the last one; both with the snake that follows."""
    kind, precision = DTYPES[dtype]
    name = f"unit_{channels}_{dtype}_{'last' if last else 'inner'}"
    run, inputs = _unit(target, last=last)
    on_tpu = target.accelerator.gpu is None
    run.__name__ = name  # XLA's files have it in theirs
    device = described(target)[0]
    sharding = SingleDeviceSharding(device)
    # Later versions of Pallas ask the mesh, and not the arguments, which GPU it is.
    mesh = Mesh(np.asarray([device]), ("x",)).abstract_mesh

    def shape(*sizes: int, dtype: str = "float32") -> Any:
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=sharding)

    vector = shape(channels)
    weights: Any = UnitWeights(
        SnakeWeights(vector, vector),
        shape(RESIDUAL_WIDTH, channels, channels, dtype=kind),
        vector,
        SnakeWeights(vector, vector),
        shape(channels, channels, dtype=kind),
        vector,
        dilation=None,  # type: ignore[arg-type] # the dilation is a part of the program, not one of its inputs
    )
    extent = Extent(*[shape(1, dtype="int32")] * 2)
    activations = [shape(1, _STEPS, channels, dtype=kind)] * inputs
    begun = time.perf_counter()
    with jax.default_matmul_precision(precision or "default"), jax.sharding.use_abstract_mesh(mesh):
        compiled = jax.jit(run).lower(*activations, weights, SnakeWeights(vector, vector), extent).compile()
    seconds = time.perf_counter() - begun
    # A TPU's kernel takes its input three times over, and reads parts of each.
    moved = read(compiled).bytes / (_STEPS * channels * jnp.dtype(kind).itemsize)
    passes = tpu.passes(channels) if on_tpu else moved
    writes = "its snake" if last else "the output" if on_tpu else "the output and its snake"
    row = Row(channels, dtype, writes, round(passes, 2), seconds=round(seconds, 1))
    return row if on_tpu else dataclasses.replace(row, **_of_ptx(name))


def _unit(target: Target, *, last: bool) -> tuple[Any, int]:
    """A function of a unit, and how many activations it takes."""
    if target.accelerator.gpu is None:

        def on_tpu(x, weights, after, extent):
            weights = weights._replace(dilation=_DILATION)
            return tpu.run_unit(x, weights, after if last else None, extent, last=last, interpret=False)

        return on_tpu, 1
    shared = target.accelerator.gpu.shared_per_block

    def on_gpu(active, x, weights, after, extent):
        weights = weights._replace(dilation=_DILATION)
        return gpu.run_unit(
            active, x, weights, after, extent, both=not last, shared_memory=shared, interpret=False
        )

    return on_gpu, 2


def _of_ptx(name: str) -> dict[str, Any]:
    """What XLA's files of a program tell of its kernel."""
    folder = Path(os.environ[_INSIDE])
    files = list(folder.glob(f"*jit_{name}.*.ptx"))
    if not files:  # JAX 0.11.2 writes none
        return {}
    ptx = max(files, key=lambda path: path.stat().st_size)
    text = ptx.read_text(encoding="utf-8")
    (thunks,) = folder.glob(f"*jit_{name}.thunk_sequence.txt")
    shared = re.search(r"shared_memory: (\d+)", thunks.read_text(encoding="utf-8"))
    registers, spilled = _of_assembler(ptx, re.search(r"^\.target (\w+)", text, re.MULTILINE))
    return {
        "registers": registers,
        "spilled": spilled,
        "shared_memory": int(shared[1]) if shared else None,
        "tensor_cores": "mma" in text,
    }


def _of_assembler(ptx: Path, architecture: re.Match[str] | None) -> tuple[int | None, int | None]:
    package = importlib.util.find_spec("nvidia.cuda_nvcc")
    if package is None or not package.submodule_search_locations or architecture is None:
        return None, None
    assembler = Path(package.submodule_search_locations[0]) / "bin" / "ptxas"
    words = [str(assembler), "-v", f"-arch={architecture[1]}", str(ptx), "-o", os.devnull]
    told = subprocess.run(words, capture_output=True, text=True).stderr
    registers = re.search(r"Used (\d+) registers", told)
    spilled = re.search(r"(\d+) bytes spill stores", told)
    if registers is None or spilled is None:
        raise UserError(f"the assembler does not take {ptx.name}: {told.strip().splitlines()[-1:]}")
    return int(registers[1]), int(spilled[1])


def _table(target: Target, rows: Sequence[Row]) -> str:
    on_gpu = target.accelerator.gpu is not None
    lines = [
        f"compiled for {target.name}, not run; jax {jax.__version__}\n",
        "| channels | numbers | writes | passes |"
        + (" registers | spilled bytes | shared kB |" if on_gpu else "")
        + " compile s |",
        "|---|---|---|---|" + ("---|---|---|" if on_gpu else "") + "---|",
    ]
    for row in rows:
        cells = [row.channels, row.dtype, row.writes, row.passes]
        if on_gpu:
            cells += [row.registers, row.spilled, f"{(row.shared_memory or 0) / 1000:.0f}"]
        lines.append(f"| {' | '.join(map(str, [*cells, row.seconds]))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_program(main)
