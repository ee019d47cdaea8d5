"""Describes the machine of a measurement, and measures the memory that a call takes."""

import ctypes
import gc
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path

import jax


def describe() -> dict[str, str | int]:
    """The processor, the number of cores that this process may use, JAX's devices, and versions."""
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
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    except OSError:
        return None
    before = _status("VmRSS")
    function()
    return max(0, _status("VmHWM") - before)


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
