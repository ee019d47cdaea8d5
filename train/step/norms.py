"""Norms over all arrays of a tree, in few kernels on an accelerator, and clipping by one that is known."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree


def norm(tree: PyTree) -> Float[Array, ""]:
    """√Σx² over all arrays of a tree; `optax.tree.norm` up to rounding.

    Vectors (gains, biases and the snakes' parameters, four fifths of a model's arrays) are joined first: one
    by one they are hundreds of kernels that each take longer to start than to run.
    """
    leaves = jax.tree.leaves(tree)
    vectors = [leaf.reshape(-1) for leaf in leaves if leaf.ndim <= 1]
    arrays = [leaf for leaf in leaves if leaf.ndim > 1]
    if vectors:
        arrays.append(jnp.concatenate(vectors))
    return jnp.sqrt(sum(jnp.sum(jnp.square(array)) for array in arrays))


def clip_by_norm(largest: float) -> optax.GradientTransformationExtraArgs:
    """`optax.clip_by_global_norm` for a caller that knows the norm: `update(..., norm=norm)`."""

    def update(
        updates: PyTree, state: optax.OptState, params: PyTree = None, *, norm: Array, **_: Any
    ) -> tuple[PyTree, optax.OptState]:
        del params
        return jax.tree.map(lambda x: jnp.where(norm < largest, x, x / norm * largest), updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
