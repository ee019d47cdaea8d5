"""Chooses between the plain form of a function and one that is faster or smaller on a CPU or a GPU."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import jax
from jax import lax
from jaxtyping import Array, Float

from earvae_jax.train.formulations import planes, planes_on_cpu, planes_on_gpu, sums
from earvae_jax.train.formulations.planes import PlaneLayer
from earvae_jax.train.formulations.stored import not_inlined, stored

_PLAIN: ContextVar[frozenset[str]] = ContextVar("plain", default=frozenset())
_Result = TypeVar("_Result")


def conv_stack(
    x: Float[Array, "B K F I"], layers: Sequence[PlaneLayer], *, dilations: Sequence[int], slope: float
) -> list[Float[Array, "B K F O"]]:
    """The outputs of all layers in a stack of convolutions; each is the input of the next layer.

    A layer is a cross-correlation over (time, frequency), dilated along time by its entry of `dilations`;
    all but the last end in a leaky ReLU, which multiplies negative values by `slope`. Only reverse-mode
    gradients are defined.

    Raises:
      ValueError: the slope is not above 0 and at most 1; the gradient reads the sign from the output.
    """
    if not 0 < slope <= 1:
        raise ValueError(f"slope must be above 0 and at most 1, not {slope}")
    options: dict[str, Any] = {"dilations": tuple(dilations), "slope": slope}
    return _computed(
        "conv_stack",
        x,
        tuple(layers),
        plain=functools.partial(planes.conv_stack, **options),
        on_cpu=functools.partial(planes_on_cpu.conv_stack, **options),
        on_gpu=functools.partial(planes_on_gpu.conv_stack, **options),
    )


@jax.custom_vjp
def gradient_stored(x: Array) -> Array:
    """The same array; on a CPU its gradient (reverse mode only) is stored before anything reads it."""
    return x


def _forward(x):
    return x, None


def _backward(_, gradient):
    return (_computed("gradient_stored", gradient, plain=lambda g: g, on_cpu=stored),)


gradient_stored.defvjp(_forward, _backward)


def sums_of_planes(*planes: Float[Array, "B K F"]) -> tuple[Float[Array, " B"], ...]:
    """The sum of each item's bins, for planes of one shape; on a GPU one kernel computes them all."""
    return _computed(
        "sums_of_planes", *planes, plain=sums.one_by_one, on_cpu=sums.one_by_one, on_gpu=sums.at_once
    )


def all_at_once(arrays: _Result) -> _Result:
    """The same arrays; off a CPU what reads any of them waits until all are there."""
    return _computed("all_at_once", arrays, plain=lax.optimization_barrier, on_cpu=lambda same: same)


def in_one_call(
    function: Callable[..., _Result], *, on_gpu: Callable[..., _Result] | None = None
) -> Callable[..., _Result]:
    """The same function of arrays; on a CPU it is a call of its own, whose temporary arrays end with it.

    `on_gpu` computes the same on a GPU.
    """
    on_cpu = not_inlined()(function)
    return functools.partial(_computed, "in_one_call", plain=function, on_cpu=on_cpu, on_gpu=on_gpu)


NAMES = ("conv_stack", "gradient_stored", "in_one_call")  # what a CPU computes in a way of its own


@contextlib.contextmanager
def plain(*names: str) -> Iterator[None]:
    """Functions traced inside take these names in their plain form, to measure what the other form gains."""
    token = _PLAIN.set(frozenset(names))
    try:
        yield
    finally:
        _PLAIN.reset(token)


def _computed(
    name: str, *operands: Any, plain: Callable, on_cpu: Callable, on_gpu: Callable | None = None
) -> Any:
    if name in _PLAIN.get():
        return plain(*operands)
    gpus = {} if on_gpu is None else {"cuda": on_gpu, "rocm": on_gpu}
    return lax.platform_dependent(*operands, cpu=on_cpu, default=plain, **gpus)
