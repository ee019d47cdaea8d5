"""Programs for a CPU take its own ways, unless they are told not to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earvae_jax.train.formulations import choice, planes
from earvae_jax.train.formulations.planes import PlaneLayer

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="these ways are for a CPU alone")


def program(function, *operands) -> str:
    return jax.jit(lambda *x: function(*x)).lower(*operands).as_text()


def stack(x):
    kernel = jnp.ones((3, 9, 2, 4))
    return choice.conv_stack(x, [PlaneLayer(kernel, jnp.zeros(4))], dilations=(1,), slope=0.2)


CALLS = {
    "conv_stack": stack,
    "gradient_stored": jax.grad(lambda x: jnp.sum(jnp.sin(choice.gradient_stored(x)))),
    "in_one_call": choice.in_one_call(jnp.sin),
}


@pytest.mark.parametrize("name", choice.NAMES)
def test_each_way_can_be_switched_off_alone(name):
    x = jnp.ones((1, 4, 12, 2))
    used = program(CALLS[name], x)
    with choice.plain(*(other for other in choice.NAMES if other != name)):
        assert program(CALLS[name], x) == used
    with choice.plain(name):
        assert program(CALLS[name], x) != used
    assert program(CALLS[name], x) == used


def test_a_gpu_takes_its_ways():
    """Lowered for one, which needs none: no dilation, one sum of several values, an order."""

    def lowered(function, *operands, platform):
        return (
            jax.jit(lambda *x: function(*x)).trace(*operands).lower(lowering_platforms=(platform,)).as_text()
        )

    def dilated(x):
        return choice.conv_stack(
            x, [PlaneLayer(jnp.ones((3, 9, 2, 4)), jnp.zeros(4))], dilations=(2,), slope=0.2
        )

    planes_of_audio, plane = jnp.ones((1, 4, 12, 2)), jnp.ones((2, 5, 7))
    assert "rhs_dilate = [2, 1]" in lowered(dilated, planes_of_audio, platform="tpu")
    assert "rhs_dilate = [2, 1]" not in lowered(dilated, planes_of_audio, platform="cuda")
    sums = [plane] * 3
    counts = [
        lowered(choice.sums_of_planes, *sums, platform=each).count("stablehlo.reduce(")
        for each in ("cpu", "cuda")
    ]
    assert counts == [3, 1]
    assert "optimization_barrier" in lowered(choice.all_at_once, plane, platform="cuda")
    assert "optimization_barrier" not in lowered(choice.all_at_once, plane, platform="cpu")


def test_the_plain_stack_is_the_definition():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 12, 2)), jnp.float32)
    layers = [PlaneLayer(jnp.ones((3, 9, 2, 4)), jnp.zeros(4))]
    with choice.plain("conv_stack"):
        found = choice.conv_stack(x, layers, dilations=(1,), slope=0.2)
    expected = functools.partial(planes.conv_stack, dilations=(1,), slope=0.2)(x, layers)
    np.testing.assert_array_equal(found[0], expected[0])
