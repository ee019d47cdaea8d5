"""Errors meant for the person who runs the program, and optional dependencies."""

import importlib
from types import ModuleType


class UserError(ValueError):
    """An error that the user can correct: one line says which file, what is wrong and what to do.

    The command line prints the message without a traceback.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the host or on a device; for a device XLA raises a RuntimeError."""
    return isinstance(error, MemoryError) or str(error).startswith("RESOURCE_EXHAUSTED")


def require(module: str, *, extra: str) -> ModuleType:
    """Imports an optional dependency, or raises a `UserError` that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        package = module.split(".")[0]
        raise UserError(
            f"this needs {package}, which is not installed; run: pip install 'earvae-jax[{extra}]'"
        ) from None
