"""Stacks hold every parameter once, and compute what the modules do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_models
from flax import nnx

from earvae_jax.train.config import DiscriminatorConfig
from earvae_jax.train.losses.discriminator import Discriminator
from earvae_jax.train.step.stacks import Stacks, norm_of, split_module

pytestmark = pytest.mark.usefixtures("quick_compilation")

KINDS_OF_STACKS = pytest.mark.parametrize("for_gpu", [False, True])


def same(first, second, tolerance):
    first, second = (
        {jax.tree_util.keystr(path, simple=True): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
        for tree in (first, second)
    )
    assert first.keys() == second.keys()
    for name, leaf in first.items():
        np.testing.assert_allclose(leaf, second[name], rtol=0, atol=tolerance, err_msg=name)


def discriminator():
    config = DiscriminatorConfig(n_ffts=(64, 32), filters=4, dilations=(1, 2))
    return Discriminator(config, 2, rngs=nnx.Rngs(0))


@KINDS_OF_STACKS
@pytest.mark.parametrize("kind", small_models.KINDS)
def test_every_parameter_comes_back(kind, for_gpu):
    module = small_models.model(small_models.KINDS[kind])
    _, parameters, _ = split_module(module)
    stacks = Stacks(module, for_gpu=for_gpu)
    stacked = stacks.stack(parameters)
    assert stacks.is_stacked(stacked) and stacks.is_tree(parameters) and not stacks.is_tree(stacked)
    assert sum(leaf.size for leaf in stacked.values()) == sum(x.size for x in jax.tree.leaves(parameters))
    assert len(stacked) < len(jax.tree.leaves(parameters))
    back = stacks.unstack(stacked)
    same(back, parameters, 0)


@KINDS_OF_STACKS
@pytest.mark.parametrize("kind", small_models.KINDS)
def test_a_model_of_stacks_is_the_model(kind, for_gpu):
    config = small_models.KINDS[kind]
    module = small_models.model(config)
    structure, parameters, constants = split_module(module)
    stacks = Stacks(module, for_gpu=for_gpu)
    samples = 16 * config.downsampling_ratio
    audio = np.random.default_rng(0).standard_normal((2, samples, 2)).astype(np.float32)

    def loss(model):
        posterior = model.encode(audio)
        return jnp.mean(jnp.square(model.decode(posterior.mean))) + jnp.mean(posterior.scale**2)

    def of_tree(parameters):
        return loss(nnx.merge(structure, parameters, constants))

    def of_stacks(stacked):
        return loss(stacks.module(stacked, constants, jnp.float32))

    expected, of_parameters = jax.jit(jax.value_and_grad(of_tree))(parameters)
    found, of_stacked = jax.jit(jax.value_and_grad(of_stacks))(stacks.stack(parameters))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(of_parameters))
    same(stacks.unstack(of_stacked), of_parameters, 1e-5 * largest)


@KINDS_OF_STACKS
def test_a_discriminator_of_stacks_is_the_discriminator(for_gpu):
    module = discriminator()
    _, parameters, constants = split_module(module)
    stacks = Stacks(module, for_gpu=for_gpu)
    audio = np.random.default_rng(0).standard_normal((2, 256, 2)).astype(np.float32)
    again = stacks.module(stacks.stack(parameters), constants, jnp.float32)
    for ours, theirs in zip(again(audio)[0], module(audio)[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_norms_are_those_of_the_parts():
    module = small_models.model(small_models.KINDS["transformer"])
    _, parameters, _ = split_module(module)
    stacks = Stacks(module, for_gpu=True)
    norms = stacks.norms(stacks.stack(parameters))
    assert norms.keys() == parameters.keys() >= {"encoder", "transformers", "decoder"}
    for part, norm in norms.items():
        assert float(norm) == pytest.approx(float(optax.tree.norm(parameters[part])), rel=1e-6)
    assert float(norm_of(norms)) == pytest.approx(float(optax.tree.norm(parameters)), rel=1e-6)
