"""Parameters of one kind in one array, so that what a step does to each of them is one kernel for all.

The full-size model and its discriminator have some 700 arrays, most of them vectors. One by one, optimizer,
average, norms of gradients and weight norms are thousands of kernels, most of which take longer to start than
to run; for stacks they are some hundred.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.traversals import flatten_mapping, unflatten_mapping
from jax import lax
from jaxtyping import Array, Float, PyTree

from earvae_jax.model.convolution import weight_norm
from earvae_jax.model.layers import Conv, SnakeBeta, WeightNormed, folded
from earvae_jax.model.snake import amplitude_of, frequency_of
from earvae_jax.train.formulations.snake_on_gpu import snake_on_gpu

Parameters = Any  # nested dicts of arrays, as `nnx.split` and `nnx.as_pure` give them
Stacked = dict[str, Array]  # by what stands in them
_Path = tuple[str | int, ...]

_FOLDED = {"direction": "folded_kernel", "alpha": "folded_frequency", "beta": "folded_amplitude"}


def split_module(module: nnx.Module) -> tuple[nnx.GraphDef, Parameters, Parameters]:
    """Structure, trained arrays and constants of a module."""
    structure, parameters, constants = nnx.split(module, nnx.Param, ...)  # type: ignore[misc] # flax says tuple[S, *S, ...]
    return structure, nnx.as_pure(parameters), nnx.as_pure(constants)


def norm_of(parts: Mapping[str, Float[Array, ""]]) -> Float[Array, ""]:
    """√Σx² over all parts, from that of each."""
    return jnp.sqrt(sum(jnp.square(part) for part in parts.values()))


@dataclasses.dataclass(frozen=True)
class _Stack:
    """Vectors behind each other, [sum of their lengths], or n other parameters of one shape, [n, …]."""

    paths: tuple[_Path, ...]
    shapes: tuple[tuple[int, ...], ...]
    order: tuple[int, ...]  # the axes of a parameter as they stand in the stack
    gain_axis: int | None = None  # of directions: the axis of the stack that has gains

    @property
    def lengths(self) -> list[int]:
        """What each parameter takes of the first axis."""
        return [shape[0] if len(shape) == 1 else 1 for shape in self.shapes]

    def take(self, leaves: Mapping[_Path, Array]) -> Array:
        """The stack of these parameters."""
        parts = [jnp.transpose(leaves[path], self.order) for path in self.paths]
        return jnp.concatenate([part if part.ndim == 1 else part[None] for part in parts])

    def give(self, stack: Array) -> Iterator[tuple[_Path, Array]]:
        """The parameters of a stack by path."""
        back = tuple(int(axis) for axis in np.argsort(self.order))
        # Split, not indexed, so that the gradient of a stack is one concatenation.
        parts = lax.split(stack, self.lengths)
        for path, shape, part in zip(self.paths, self.shapes, parts, strict=True):
            yield path, jnp.transpose(part.reshape([shape[axis] for axis in self.order]), back)


class Stacks:
    """The parameters of a module in stacks, and what its layers compute of them.

    Args:
      module: with shapes alone or with arrays, which are not used.
      for_gpu: kernels stand as [n, O, …, I], in which cuDNN reads them, instead of [n, …, I, O]; dilated
        convolutions are computed in rows, and snakes with gradients in few kernels.
    """

    def __init__(self, module: nnx.Module, *, for_gpu: bool):
        computing = folded(module)
        for _, layer in nnx.iter_modules(computing):
            if for_gpu and isinstance(layer, Conv):
                layer.in_rows = True
            elif for_gpu and isinstance(layer, SnakeBeta):
                layer.function = snake_on_gpu
        self._folded = nnx.split(computing)[0]
        self._stacks = _stacks(module, outputs_first=for_gpu)
        self._parts = {path[0] for stack in self._stacks.values() for path in stack.paths}

    def is_stacked(self, value: Any) -> bool:
        """Whether a value is what `stack` gives."""
        return isinstance(value, Mapping) and value.keys() == self._stacks.keys()

    def is_tree(self, value: Any) -> bool:
        """Whether a value is what `unstack` gives."""
        return isinstance(value, Mapping) and value.keys() == self._parts

    def stack(self, parameters: Parameters) -> Stacked:
        """The stacks of a tree of parameters."""
        leaves = flatten_mapping(parameters)
        return {name: stack.take(leaves) for name, stack in self._stacks.items()}

    def unstack(self, stacked: Stacked) -> Parameters:
        """The tree of parameters."""
        return unflatten_mapping(
            dict(pair for name, stack in self._stacks.items() for pair in stack.give(stacked[name]))
        )

    def stack_all(self, trees: PyTree) -> PyTree:
        """Stacks every tree of parameters in a pytree, such as an optimizer's state."""
        return _mapped(self.stack, self.is_tree, trees)

    def unstack_all(self, trees: PyTree) -> PyTree:
        """The reverse of `stack_all`."""
        return _mapped(self.unstack, self.is_stacked, trees)

    def module(self, stacked: Stacked, constants: Parameters, dtype: jnp.dtype) -> Any:
        """The module that computes with these parameters; kernels and biases of convolutions are `dtype`."""
        leaves = flatten_mapping(constants)
        for name, values in self._fold(stacked).items():
            stack = self._stacks[name]
            if name == "bias" or stack.gain_axis is not None:
                values = values.astype(dtype)
            for path, leaf in stack.give(values):
                leaves[*path[:-1], _FOLDED.get(str(path[-1]), path[-1])] = leaf
        return nnx.merge(self._folded, unflatten_mapping(leaves))

    def norms(self, stacked: Stacked) -> dict[str, Float[Array, ""]]:
        """√Σx² over the parameters of each part of the module."""
        squares: list[Array] = []
        parts: list[str] = []
        for name, stack in self._stacks.items():
            square = jnp.square(stacked[name])
            squares.append(jnp.sum(square, axis=tuple(range(1, square.ndim))))
            parts += np.repeat([str(path[0]) for path in stack.paths], stack.lengths).tolist()
        every = jnp.concatenate(squares)
        return {
            part: jnp.sqrt(jnp.sum(jnp.where(np.array(parts) == part, every, 0)))
            for part in dict.fromkeys(parts)
        }

    def _fold(self, stacked: Stacked) -> Stacked:
        """What layers compute with: kernels after weight norm, frequencies and amplitudes of the snakes."""
        result = {name: array for name, array in stacked.items() if name != "gain"}
        for name, function in (("alpha", frequency_of), ("beta", amplitude_of)):
            if name in stacked:
                result[name] = function(stacked[name])
        axes = {name: each.gain_axis for name, each in self._stacks.items() if each.gain_axis is not None}
        sizes = [(stacked[name].shape[0], stacked[name].shape[axis]) for name, axis in axes.items()]
        gains = lax.split(stacked["gain"], [math.prod(size) for size in sizes])
        for (name, axis), gain, size in zip(axes.items(), gains, sizes, strict=True):
            norm = functools.partial(weight_norm, axis=axis - 1)
            result[name] = jax.vmap(norm)(gain.reshape(size), stacked[name])
        return result


def _mapped(change: Callable[[Any], Any], fits: Callable[[Any], bool], trees: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: change(leaf) if fits(leaf) else leaf, trees, is_leaf=fits)


def _stacks(module: nnx.Module, *, outputs_first: bool) -> dict[str, _Stack]:
    """The stacks of a module by name; gains stand in the order of their directions."""
    layers = dict(nnx.iter_modules(module))
    leaves = flatten_mapping(nnx.as_pure(nnx.state(module, nnx.Param)))
    found: dict[str, _Stack] = {}
    for path, leaf in leaves.items():
        layer, kind, order = layers[path[:-1]], str(path[-1]), tuple(range(leaf.ndim))
        gain_axis = None
        name = f"other {'x'.join(map(str, leaf.shape))}"
        if isinstance(layer, WeightNormed | SnakeBeta):
            name = kind
        if kind == "direction" and isinstance(layer, WeightNormed):
            name = f"direction {'x'.join(map(str, leaf.shape))} by axis {layer.gain_axis}"
            if outputs_first:
                order = (order[-1], *order[:-2], order[-2])
            gain_axis = 1 + order.index(layer.gain_axis)
        elif leaf.ndim == 1 and name != kind:
            name = "vector"
        before = found.get(name, _Stack((), (), order, gain_axis))
        found[name] = dataclasses.replace(
            before, paths=(*before.paths, path), shapes=(*before.shapes, tuple(leaf.shape))
        )
    found = dict(sorted(found.items()))
    paths = [
        (*path[:-1], "gain") for each in found.values() if each.gain_axis is not None for path in each.paths
    ]
    found["gain"] = _Stack(tuple(paths), tuple(tuple(leaves[path].shape) for path in paths), (0,))
    return found
