"""The former name of `python -m earvae_jax.train.studies.make_demo`."""

import runpy
import sys

if __name__ == "__main__":
    sys.stderr.write("this program is now `python -m earvae_jax.train.studies.make_demo`\n")
    runpy.run_module("earvae_jax.train.studies.make_demo", run_name="__main__", alter_sys=True)
