"""Releases of jaxlib that this package excludes, and what its commands do if one is installed anyway."""

import os

import jaxlib
from absl import logging

# Fourier transforms of one program can wait for each other for ever on a CPU: docs/known-faults.md.
HANGING_JAXLIB = ("0.11.1", "0.11.2")
_FLAG = "--xla_cpu_multi_thread_eigen"


def keep_transforms_from_hanging() -> None:
    """Runs each Fourier transform of this process on one thread, if the installed jaxlib can hang.

    Call it before JAX computes anything. A choice that `XLA_FLAGS` already holds stays as it is.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if jaxlib.__version__ not in HANGING_JAXLIB or _FLAG in flags:
        return
    os.environ["XLA_FLAGS"] = f"{flags} {_FLAG}=false".lstrip()
    logging.warning(
        "jaxlib %s can hang for ever on a CPU: parts of this run use one thread there; run: pip install %r",
        jaxlib.__version__,
        f"jax>=0.9,{','.join(f'!={version}' for version in HANGING_JAXLIB)},<0.12",
    )
