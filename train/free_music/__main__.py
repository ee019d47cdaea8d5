"""`python -m earvae_jax.train.free_music OUT`."""

from earvae_jax.command import run_program
from earvae_jax.train.free_music.fetch import main

if __name__ == "__main__":
    run_program(main)
