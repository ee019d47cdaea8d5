"""The former name of `python -m earvae_jax.train.studies.step_benchmark`."""

import runpy
import sys

if __name__ == "__main__":
    sys.stderr.write("this program is now `python -m earvae_jax.train.studies.step_benchmark`\n")
    runpy.run_module("earvae_jax.train.studies.step_benchmark", run_name="__main__", alter_sys=True)
