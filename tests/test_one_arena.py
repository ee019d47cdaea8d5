"""The codec's commands use one heap, unless the environment says otherwise."""

import os
import platform
import subprocess
import sys

import pytest

# Threads take memory at the same time; malloc_info(3) then lists a <heap nr=…> for every arena.
PROGRAM = """
import ctypes, sys, tempfile, threading
from earvae_jax.infer.one_arena import use_one_arena
use_one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
together = threading.Barrier(8)
def work():
    together.wait()
    for _ in range(1000):
        libc.malloc(1000)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.fopen.restype, libc.malloc_info.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
with tempfile.NamedTemporaryFile() as file:
    stream = libc.fopen(file.name.encode(), b"w")
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(file.read().count(b"<heap "))
"""


def arenas(**environment: str) -> int:
    kept = {n: v for n, v in os.environ.items() if n not in ("GLIBC_TUNABLES", "MALLOC_ARENA_MAX")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=kept | environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
def test_threads_share_one_heap_unless_the_environment_chooses():
    assert arenas() == 1
    assert arenas(MALLOC_ARENA_MAX="4") > 1
    assert arenas(GLIBC_TUNABLES="glibc.malloc.arena_max=4") > 1
