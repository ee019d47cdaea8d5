"""Values that the processes of a run exchange, and arrays that they share."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float

from earvae_jax.errors import UserError


def replicate(array: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Makes a shared array, whole or split, of an array that is the same in all processes."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: np.asarray(array)[index])


def local(array: jax.Array) -> jax.Array:
    """A shared array as this process's own; all processes must call it, as parts may lie with others."""
    if not array.is_fully_replicated:
        whole = NamedSharding(array.sharding.mesh, PartitionSpec())  # type: ignore[attr-defined] # of its class
        array = jax.jit(lambda x: x, out_shardings=whole)(array)
    return array.addressable_data(0)


def gather_numbers(values: Float[np.ndarray, " V"]) -> Float[np.ndarray, "P V"]:
    """The numbers of all processes, as float32; each process gives as many.

    This waits for the step in flight, so the device is idle for some milliseconds.
    """
    if jax.process_count() == 1:
        return values.astype(np.float32)[None]
    return np.asarray(multihost_utils.process_allgather(values.astype(np.float32)))


def gather(value: Any) -> list[Any]:
    """The values of all processes, in the order of the processes; a value is what JSON can hold."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.array(len(data)))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[:length])) for row, length in zip(rows, lengths, strict=True)]


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """Wraps work that may fail in one process alone: the others then fail too instead of waiting for it.

    Raises:
      UserError: in every process, if any process raised one inside.
    """
    error = None
    try:
        yield
    except UserError as raised:
        error = raised
    messages = gather(None if error is None else str(error))
    if error is not None:
        raise error
    for process, message in enumerate(messages):
        if message is not None:
            raise UserError(f"process {process}: {message}")
