"""Makes XLA's program for a CPU compute an array once and store it, which it would not do by itself.

XLA fuses a chain of elementwise operations into each loop that reads its result. Several readers then compute
the chain several times, and after a pad or a concatenation (the gradients of slices) the chain lies in a
branch that is not vectorized. An optimization barrier does not change this; a call does.

On a Xeon a step of the demo takes 1.04 times as long without it (its generator alone), or 1.02 and 1.26 times
(adversarial: `gradient_stored`, `in_one_call`); `train/studies/formulation_benchmark.py` measures that.
"""

import functools
from collections.abc import Callable

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array


def not_inlined(*static: str) -> Callable[[Callable], Callable]:
    """Makes a function one call in XLA's program, whose result is computed once and stored; CPU only.

    Without it, a reader that transposes an activation, as the gradient of a kernel does, reads all that the
    activation is computed from against its order in memory. That took longer than the convolutions.

    Never pass one array as two operands, nor two equal expressions, which XLA makes one array. If the
    function reads one operand element by element and the other at other places, XLA (seen in jax 0.10.2 and
    0.11.2) writes the result over the first, and the other is read from an array that is half overwritten.
    `__wrapped__` is the function without the call.
    """

    def decorate(function):
        compiled = jax.jit(function, static_argnames=static)

        @functools.wraps(function)
        def call(*args, **options):
            with set_xla_metadata(inlineable="false"):
                return compiled(*args, **options)

        return call

    return decorate


@not_inlined()
def stored(x: Array) -> Array:
    """The same array, stored before anything reads it."""
    return x * 1  # A function that only returns its input would be no call.
