"""The `earvae` script, and `python -m earvae_jax`."""

from earvae_jax.malloc_settings import restart_with_malloc_settings


def script() -> None:
    """Runs the command line in a process set up for large arrays."""
    restart_with_malloc_settings()
    from earvae_jax.command import main  # not before: its imports would be made twice

    main()


if __name__ == "__main__":
    script()
