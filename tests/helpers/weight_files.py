"""Weights as people have them: forms of weight norm, files, and what these must be read as. Needs torch."""

from pathlib import Path

import family
import numpy as np
import safetensors.torch
import torch

from earvae_jax.parameters import named_arrays

ACE = "diffusers_acestep_tiny"  # the recorded model that the files hold


def write(path: Path, tensors) -> Path:
    """The file that its suffix says; tensors may share memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        whole = torch.contiguous_format
        safetensors.torch.save_file(
            {key: tensor.clone(memory_format=whole) for key, tensor in tensors.items()}, path
        )
    else:
        torch.save(tensors, path)
    return path


def assert_is_the_recorded_model(weights, cast=lambda array: array) -> None:
    """What was read is the recorded model, to the bit."""
    model = family.model(ACE)
    assert weights.config == model.config
    expected = named_arrays(model)
    assert weights.arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(weights.arrays[name], cast(array), err_msg=name)


def parametrized(state):
    """The keys of torch.nn.utils.parametrizations."""
    names = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    return {
        f"{module}.{names.get(last, last)}": tensor
        for (module, _, last), tensor in ((key.rpartition("."), tensor) for key, tensor in state.items())
    }


def folded(state):
    """Weights in place of gain and direction."""
    result = {}
    for key, tensor in state.items():
        module, _, last = key.rpartition(".")
        if last == "weight_g":
            result[f"{module}.weight"] = torch._weight_norm(state[f"{module}.weight_v"], tensor, 0)
        elif last != "weight_v":
            result[key] = tensor
    return result
