"""Keeps compiled programs on disk, so that the second start of a command does not compile again."""

import os
from pathlib import Path

import jax

from earvae_jax.system.user_cache import OFF, VARIABLE, cache_folder


def enable_compilation_cache(directory: str | Path | None = None) -> None:
    """Keeps compiled programs in `directory`, `$EARVAE_CACHE_DIR` or the user's cache folder.

    "off" keeps none. If JAX already has a cache and `directory` is None, that cache stays as it is.
    """
    given = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined] # made at run time
    if directory is None and given:
        return
    chosen = str(directory or os.environ.get(VARIABLE) or cache_folder() / "compiled")
    if chosen == OFF:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    jax.config.update("jax_compilation_cache_dir", chosen)
    # The defaults keep only programs that took long to compile: a short clip would compile every time.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
