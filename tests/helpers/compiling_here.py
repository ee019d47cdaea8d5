"""A worker that compiles for this machine's own devices in place of a target's, and plans for it."""

import sys

import jax
import jax.numpy as jnp

from earvae_jax.errors import UserError
from earvae_jax.targets.plan import Growth, Plan, Program

# What the process that compiles runs; the tests' helpers are on its path.
WORKER = (
    sys.executable,
    "-c",
    f"import sys; sys.path[:0] = {sys.path!r}\n"
    "import jax\n"
    "from earvae_jax.targets import worker\n"
    "worker.described = lambda target: jax.devices()[: target.devices]\n"
    "worker.main()",
)


def squares(arguments, devices) -> Plan:
    """Products of square matrices; the larger the batch, the more memory."""
    del devices
    if arguments.size < 1:
        raise UserError("the size is not above zero")

    def program(name: str, count: int) -> Program:
        x = jax.ShapeDtypeStruct((count, arguments.size, arguments.size), jnp.float32)
        return Program(name, lambda: jax.jit(lambda x: jnp.sin(x @ x)).lower(x), runs=3)

    growth = Growth("--count", 1, 1, 1, lambda count: [program(f"square {count}", count)])
    return Plan("squares", [program("square 1", 1), program("square 4", 4)], {"weights": 1000}, [growth])
