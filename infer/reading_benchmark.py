"""The former name of `python -m earvae_jax.infer.benchmark.reading`."""

import runpy
import sys

if __name__ == "__main__":
    sys.stderr.write("this program is now `python -m earvae_jax.infer.benchmark.reading`\n")
    runpy.run_module("earvae_jax.infer.benchmark.reading", run_name="__main__", alter_sys=True)
