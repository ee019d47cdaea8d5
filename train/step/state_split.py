"""How the state of a run lies on its devices: whole on each, or each with its part."""

from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, PyTree


class StateSplit:
    """The places of the state's arrays on a mesh of one axis.

    Args:
      mesh: the devices; None for one.
      parted: each device keeps a part of every array whose shape the devices divide.
    """

    def __init__(self, mesh: Mesh | None, *, parted: bool):
        self._devices = mesh.size if mesh is not None and parted else 1
        self._name = None if mesh is None else mesh.axis_names[0]

    def spec(self, arrays: PyTree) -> PyTree:
        """Where arrays, or their shapes, lie."""

        def of(array: Any) -> PartitionSpec:
            axis = self._axis(array)
            return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, self._name)

        return jax.tree.map(of, arrays)

    def mean(self, array: Float[Array, "..."]) -> Float[Array, "..."]:
        """The mean over the devices, in `jax.shard_map`; each gets what it keeps of such an array."""
        axis = self._axis(array)
        if axis is None:
            return lax.pmean(array, self._name)
        return lax.psum_scatter(array, self._name, scatter_dimension=axis, tiled=True) / self._devices

    def _axis(self, array: Any) -> int | None:
        """The axis over which an array is split: the last one that the devices divide."""
        if self._devices == 1:
            return None
        axes = range(array.ndim - 1, 0, -1)
        return next((axis for axis in axes if array.shape[axis] % self._devices == 0), None)
