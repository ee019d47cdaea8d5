"""`python -m earvae_jax` is the `earvae` command."""

from earvae_jax.command import main

if __name__ == "__main__":
    main()
