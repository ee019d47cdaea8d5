"""Arrays that XLA's program for a CPU computes once and stores, where left to itself it would not.

XLA fuses chains of elementwise operations into the loops of whoever reads their result. With several readers
each computes the chain again, and behind a pad or a concatenation, the gradients of slices, the chain stands
in a branch that no vector unit runs. An optimization barrier changes nothing there; a call does.
"""

import functools
from collections.abc import Callable

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array


def not_inlined(*static: str) -> Callable[[Callable], Callable]:
    """Makes a function one call in XLA's program, whose result is computed once and stored; CPU alone.

    A reader that transposes an activation, as the gradient of a kernel does, would else walk through all its
    ingredients against their order in memory, which took longer than the convolutions.

    No two operands may be the same array, nor the same expression, which XLA makes one. Where the function
    reads one of them element by element and the other at other places, XLA (seen in jax 0.10.2 and 0.11.2)
    puts the result over the first, and the other is read from what is half overwritten. `__wrapped__` is the
    function without the call.
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
