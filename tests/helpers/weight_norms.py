"""Other forms of weight norm in PyTorch's state dicts."""

import torch


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
