"""The former name of `python -m earvae_jax.train.studies.loss_benchmark`."""

import runpy
import sys

if __name__ == "__main__":
    sys.stderr.write("this program is now `python -m earvae_jax.train.studies.loss_benchmark`\n")
    runpy.run_module("earvae_jax.train.studies.loss_benchmark", run_name="__main__", alter_sys=True)
