"""The fused residual units compile for accelerators that are not here, within their registers and memory."""

import json
import subprocess
import sys

import pytest

from earvae_jax.errors import UserError
from earvae_jax.infer.benchmark import fused_kernels
from earvae_jax.targets.catalogue import ACCELERATORS, Target
from earvae_jax.targets.devices import check_compiler

# Bytes of a thread's registers in memory, once in a program: sixteen registers of two hundred.
_SPILLED = 64


def compiled(name: str) -> list[dict]:
    try:
        check_compiler(Target.parse(name).accelerator)
    except UserError as error:
        pytest.skip(str(error))
    words = [sys.executable, "-m", "earvae_jax.infer.benchmark.fused_kernels", name, "--json"]
    return json.loads(
        subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )


@pytest.mark.accelerator
def test_they_compile_for_an_h100():
    rows = compiled("h100")
    assert {(row["channels"], row["dtype"]) for row in rows} >= {
        (128, "bfloat16"),
        (256, "bfloat16"),
        (128, "tf32"),
    }
    for row in rows:
        assert row["tensor_cores"], row
        assert row["passes"] <= 4.1, row
        assert row["shared_memory"] <= ACCELERATORS["h100"].gpu.shared_per_block, row
        if row["registers"] is not None:  # the assembler is installed
            assert row["spilled"] <= _SPILLED, row


@pytest.mark.accelerator
def test_they_compile_for_a_tpu():
    rows = compiled("v5e")
    assert {row["channels"] for row in rows} == {128, 256, 512}
    assert {row["dtype"] for row in rows} == {"bfloat16", "float32"}
    assert all(row["passes"] < 2.5 for row in rows)


@pytest.mark.accelerator
def test_a_window_moves_half_the_bytes():
    """1024 latents in bfloat16 on an H100, where the plain programs move 16.8 and 17.3 GB in 155 and 151."""
    try:
        check_compiler(ACCELERATORS["h100"])
    except UserError as error:
        pytest.skip(str(error))
    words = "--compile-for h100 --dtype bfloat16 --formulation fused --seconds 23.77 --skip-largest --json"
    call = [sys.executable, "-m", "earvae_jax", "benchmark", *words.split()]
    run = subprocess.run(call, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for half in ("encode", "decode"):
        (program,) = (p for p in json.loads(run.stdout)["programs"] if p["name"].startswith(half))
        assert program["bytes"] <= 9.0e9
        assert program["kernels"] <= 64


def test_an_unknown_target_is_named():
    with pytest.raises(UserError, match="no accelerator 'h900'"):
        fused_kernels.main(["h900"])
