"""Describes the machine of a measurement, and measures the memory that a call takes."""

import ctypes
import gc
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path

GPUS = ("gpu", "cuda", "rocm")  # what JAX calls platforms with GPUs


def describe() -> dict[str, str | int]:
    """The processor, the number of cores that this process may use, JAX's devices, and versions."""
    import jax  # here alone: a process that measures torch is not to hold JAX too

    devices = jax.local_devices()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "processor": _processor(),
        "cores": cores,
        "devices": f"{len(devices)} × {devices[0].device_kind}",
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def memory() -> int:
    """Bytes of host memory that this process holds; 0 where the system does not tell."""
    return _status("VmRSS") if Path("/proc/self/status").exists() else 0


def physical_memory() -> int:
    """Bytes of host memory that this machine has; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def release_freed_memory() -> None:
    """Gives freed memory back to the system, so that a compiler's leftovers do not count as a program's."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def memory_used_at_most(function: Callable[[], object]) -> int | None:
    """The largest growth of the process in bytes while `function` runs; None if the system does not tell."""
    if not reset_peak_memory():
        return None
    before = memory()
    function()
    return max(0, peak_memory() - before)


def reset_peak_memory() -> bool:
    """Begins anew with `peak_memory`; false if the system does not tell it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory() -> int:
    """The most host memory in bytes that this process held since `reset_peak_memory`, all of it counted."""
    return _status("VmHWM")


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"^{name}:\s*(\d+) kB$", text, re.MULTILINE)
    return 1024 * int(found.group(1)) if found else 0
