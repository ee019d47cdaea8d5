"""Other projects' Oobleck models give what their own code gave: modules, codec in both formulations, port."""

import family
import jax
import numpy as np
import pytest
from flax import nnx
from places import FAMILY
from tolerances import FAMILY_OUTPUT

from earvae_jax.infer import Codec
from earvae_jax.infer.formulations import choice

torch = pytest.importorskip("torch", reason="one of the recordings' weights is a torch file")


def recorded(name):
    """The recorded arrays [T, C] and [N, D]."""
    with np.load(family.folder(name) / "golden.npz") as file:
        return {key: file[key][0].T for key in file.files}


def assert_recorded(actual, expected, what):
    scale = max(1.0, float(np.abs(expected).max()))
    assert actual.shape == expected.shape, what
    np.testing.assert_allclose(actual / scale, expected / scale, rtol=0, atol=FAMILY_OUTPUT, err_msg=what)


@pytest.mark.parametrize("name", FAMILY)
def test_modules(name):
    truth = recorded(name)
    graph, state = nnx.split(family.model(name))
    posterior = jax.jit(lambda state, x: nnx.merge(graph, state).encode(x))(state, truth["audio"][None])
    decoded = jax.jit(lambda state, x: nnx.merge(graph, state).decode(x))(state, truth["mean"][None])
    assert_recorded(np.asarray(posterior.mean[0]), truth["mean"], "mean")
    assert_recorded(np.asarray(posterior.std[0]), truth["std"], "std")
    assert_recorded(np.asarray(decoded[0]), truth["decoded"], "decoded")


@pytest.mark.parametrize(
    ("name", "formulation"),
    [(name, "plain") for name in FAMILY]
    # Its program takes long to compile.
    + [pytest.param(name, "chunked", marks=pytest.mark.slow) for name in FAMILY],
)
def test_codec(name, formulation, monkeypatch):
    """The chunked formulation, which wide models take on a CPU, is forced on these narrow ones."""
    truth, model = recorded(name), family.model(name)
    if formulation == "chunked":
        if any(stride % 2 for stride in model.config.encoder.strides):
            pytest.skip("the chunked formulation takes no odd strides")
        monkeypatch.setattr(choice, "_MIN_CHUNKED_WIDTH", 0)
    codec = Codec(model)
    assert codec.engine.compiled.free_padding == (formulation == "chunked"), (
        "not the formulation that was meant"
    )
    latents = codec.encode(truth["audio"])
    assert_recorded(latents.mean, truth["mean_padded"], "mean")
    assert_recorded(latents.std, truth["std_padded"], "std")
    assert_recorded(codec.decode(truth["mean"]), truth["decoded"], "decoded")


@pytest.mark.parametrize("name", FAMILY)
def test_port(name):
    from earvae_jax.convert import to_torch
    from earvae_jax.convert.torch_port import model as torch_model

    truth, model = recorded(name), family.model(name)
    port = torch_model.build(model.config, to_torch.state_dict(model))
    with torch.no_grad():
        mean, scale = port.encode(torch.tensor(truth["audio"].T[None]))
        actual = {
            "mean": mean,
            "std": port.std(scale),
            "decoded": port.decode(torch.tensor(truth["mean"].T[None])),
        }
    for key, value in actual.items():
        assert_recorded(value[0].numpy().T, truth[key], key)


def test_port_and_model_have_the_same_divergence():
    model = family.model("diffusers_acestep_tiny")
    from earvae_jax.convert import to_torch
    from earvae_jax.convert.torch_port import model as torch_model

    audio = recorded("diffusers_acestep_tiny")["audio"]
    port = torch_model.build(model.config, to_torch.state_dict(model))
    with torch.no_grad():
        kl = port(torch.tensor(audio.T[None]))[1]
    np.testing.assert_allclose(model.encode(audio[None]).kl(), kl, rtol=FAMILY_OUTPUT)
