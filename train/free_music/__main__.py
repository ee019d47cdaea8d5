"""`python -m earvae_jax.train.free_music OUT`."""

import sys

from absl import logging

from earvae_jax.train.free_music.fetch import main

if __name__ == "__main__":
    logging.set_verbosity(logging.INFO)
    sys.exit(main())
