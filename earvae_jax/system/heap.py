"""How glibc keeps the memory of a command: one heap for all threads, large arrays outside it or all kept."""

import ctypes
import os
import platform

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
_LARGE = 1 << 20  # bytes


def use_one_heap() -> None:
    """Keeps glibc from opening a heap for every thread; call it before JAX starts its threads.

    Memory that one thread frees then serves the others too: with the tiny model ten minutes of audio take
    550 MB instead of 730. `MALLOC_ARENA_MAX` and `GLIBC_TUNABLES` have precedence; other C libraries are
    left alone.
    """
    if not _environment_chooses("MALLOC_ARENA_MAX", "arena_max"):
        _set(_M_ARENA_MAX, 1)


def keep_large_arrays_outside() -> None:
    """Gives arrays of a megabyte or more their own pages, which the system gets back when they are freed.

    Otherwise glibc learns to take arrays up to 32 MB from the heap, and small allocations that outlive them
    leave holes. The tiny model took 528 MB for two minutes of audio and 656 for an hour; with this call, 494
    and 557. Encoding and decoding with the full-size model take the same time within 4 %.
    `MALLOC_MMAP_THRESHOLD_` and `GLIBC_TUNABLES` have precedence; other C libraries are left alone.
    """
    if not _environment_chooses("MALLOC_MMAP_THRESHOLD_", "mmap_threshold"):
        _set(_M_MMAP_THRESHOLD, _LARGE)


def keep_freed_memory() -> None:
    """Keeps what is freed for the next array of any size, instead of giving it back to the system.

    XLA takes its temporaries anew at every call. From the system they come page by page, cleared: a
    third of the time of a training step on a virtual machine. Memory stays at its peak, so this is for
    programs that do the same again and again; call `use_one_heap` first, since other heaps end at 64 MB.
    `MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_MAX_` and `GLIBC_TUNABLES` have precedence; other C libraries are
    left alone.
    """
    if not _environment_chooses("MALLOC_TRIM_THRESHOLD_", "trim_threshold"):
        _set(_M_TRIM_THRESHOLD, -1)
    if not _environment_chooses("MALLOC_MMAP_MAX_", "mmap_max"):
        _set(_M_MMAP_MAX, 0)


def _environment_chooses(variable: str, tunable: str) -> bool:
    return variable in os.environ or tunable in os.environ.get("GLIBC_TUNABLES", "")


def _set(parameter: int, value: int) -> None:
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(parameter, value)
