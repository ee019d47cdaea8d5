"""Gradients of the whole model against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tolerances import GRADIENT

from earvae_jax.model.config import ModelConfig
from earvae_jax.parameters import build, named_arrays

torch = pytest.importorskip("torch")

from earvae_jax.convert import keys  # noqa: E402
from earvae_jax.convert.torch_port import model as torch_model  # noqa: E402

KL_WEIGHT = 1e-4


def test_every_parameter_has_the_gradient_that_torch_has(golden):
    folder = golden / "tiny_44k"
    config = ModelConfig.from_json(folder / "config.json")
    state = torch.load(folder / "weights.pyt", weights_only=True)
    recorded = np.load(folder / "golden.npz")
    audio, noise = recorded["short/audio"], recorded["short/noise"]

    port = torch_model.build(config, state)
    reconstruction, kl = port(torch.from_numpy(audio), torch.from_numpy(noise))
    loss = (reconstruction - torch.from_numpy(audio)).abs().mean() + KL_WEIGHT * kl
    loss.backward()
    expected = {name: parameter.grad.numpy() for name, parameter in port.named_parameters()}

    model = build(config, keys.to_arrays(config, {key: tensor.numpy() for key, tensor in state.items()}))
    graph, parameters, rest = nnx.split(model, nnx.Param, ...)
    audio, noise = audio.swapaxes(1, 2), noise.swapaxes(1, 2)

    @jax.jit
    @jax.value_and_grad
    def loss_of(parameters):
        model = nnx.merge(graph, parameters, rest)
        posterior = model.encode(audio)
        reconstruction = model.decode(posterior.mean + posterior.std * noise)
        return jnp.mean(jnp.abs(reconstruction - audio)) + KL_WEIGHT * posterior.kl()

    value, gradients = loss_of(parameters)
    assert float(value) == pytest.approx(loss.item(), rel=1e-5)
    # The gradients sit in a model of their own, so that the key table names and lays them out.
    actual = keys.to_tensors(config, {**named_arrays(nnx.merge(graph, gradients, rest))})
    for name, gradient in expected.items():
        error = np.linalg.norm(actual[name] - gradient) / np.linalg.norm(gradient)
        assert error <= GRADIENT, f"{name}: {error:.1e}"
    trained = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(gradients)}
    assert trained == {keys.torch_tensors(config)[name].name for name in expected}
