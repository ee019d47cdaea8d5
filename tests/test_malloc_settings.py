"""The script starts itself again with huge pages and one arena, once."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from earvae_jax.malloc_settings import restart_with_malloc_settings
restart_with_malloc_settings()
print(os.getpid(), os.environ["GLIBC_TUNABLES"], sys.argv[1:])
"""


def run(**environment: str) -> list[str]:
    variables = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "a b", "--flag"],
        env=variables | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    pid, tunables, words = output.split(maxsplit=2)
    assert int(pid) == process.pid, "signals must reach the program that was started"
    assert words.strip() == "['a b', '--flag']"
    return tunables


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_tunables_are_added_and_a_choice_is_kept():
    added = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"
    assert run() == added
    assert run(GLIBC_TUNABLES="glibc.malloc.hugetlb=0") == "glibc.malloc.hugetlb=0"
    assert run(GLIBC_TUNABLES="glibc.malloc.check=0") == f"glibc.malloc.check=0:{added}"
