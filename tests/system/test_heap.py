"""Commands keep one heap, large arrays outside it or all for later, unless the environment says otherwise."""

import os
import platform
import subprocess
import sys

import pytest

# Threads take memory at the same time; malloc_info(3) then lists a <heap nr=…> for every arena.
THREADS = """
import ctypes, sys, tempfile, threading
from earvae_jax.system.heap import use_one_heap
use_one_heap()
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

# Small arrays that stay fill the holes there are, and one lies behind a large array, which would leave a hole
# in the heap when it goes; freeing a larger one first teaches glibc to take it from there. Prints whether the
# large one's pages are still the process's: mincore(2) refuses those that are not. What the process holds in
# all changes by a page or two.
LARGE_ARRAY = """
import ctypes, mmap
from earvae_jax.system.heap import keep_large_arrays_outside
keep_large_arrays_outside()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.free(libc.malloc(30 << 20))
large = libc.malloc(20 << 20)
ctypes.memset(large, 1, 20 << 20)
for _ in range(100):
    libc.malloc(100_000)
pages = 10 << 20
inside = ctypes.c_void_p((large // mmap.PAGESIZE + 1) * mmap.PAGESIZE)
seen = ctypes.create_string_buffer(pages // mmap.PAGESIZE)
assert libc.mincore(inside, ctypes.c_size_t(pages), seen) == 0
libc.free(large)
print(int(libc.mincore(inside, ctypes.c_size_t(pages), seen) == 0))
"""

# Arrays as a program's temporaries: taken, written and freed again and again. Prints whether the later rounds
# get the pages of the first: each page that comes from the system is a fault.
AGAIN_AND_AGAIN = """
import ctypes, mmap, resource
from earvae_jax.system.heap import keep_freed_memory, use_one_heap
use_one_heap()
keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def round():
    arrays = [libc.malloc(size << 20) for size in (1, 5, 40, 100)]
    for array, size in zip(arrays, (1, 5, 40, 100)):
        ctypes.memset(array, 1, size << 20)
    for array in arrays:
        libc.free(array)
round()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    round()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(int(faults < (20 << 20) // mmap.PAGESIZE))
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")


def run(program: str, **environment: str) -> int:
    chosen = (
        "GLIBC_TUNABLES",
        "MALLOC_ARENA_MAX",
        "MALLOC_MMAP_THRESHOLD_",
        "MALLOC_MMAP_MAX_",
        "MALLOC_TRIM_THRESHOLD_",
    )
    kept = {n: v for n, v in os.environ.items() if n not in chosen}
    done = subprocess.run(
        [sys.executable, "-c", program], env=kept | environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_threads_share_one_heap_unless_the_environment_chooses():
    assert run(THREADS) == 1
    assert run(THREADS, MALLOC_ARENA_MAX="4") > 1
    assert run(THREADS, GLIBC_TUNABLES="glibc.malloc.arena_max=4") > 1


def test_large_arrays_leave_no_holes_unless_the_environment_chooses():
    assert run(LARGE_ARRAY) == 0
    assert run(LARGE_ARRAY, MALLOC_MMAP_THRESHOLD_=str(32 << 20)) == 1


def test_freed_memory_is_kept_unless_the_environment_chooses():
    assert run(AGAIN_AND_AGAIN) == 1
    assert run(AGAIN_AND_AGAIN, MALLOC_MMAP_MAX_="1000", MALLOC_TRIM_THRESHOLD_="100000") == 0
