"""Options without a recording: the JAX model against the PyTorch port, through the conversion."""

import math

import pytest

from earvae_jax.model.config import ModelConfig
from earvae_jax.parameters import build

torch = pytest.importorskip("torch")

from earvae_jax.convert import keys  # noqa: E402
from earvae_jax.convert.parity import compare as parity  # noqa: E402
from earvae_jax.convert.torch_port import model as torch_model  # noqa: E402


def config(*, half=None, transformer=None):
    """A small model with odd strides; `half` holds for encoder and decoder."""
    half = {"channels": 4, "c_mults": [1, 2], "strides": [2, 3], "use_snake": True, **(half or {})}
    encoder = {key: value for key, value in half.items() if key not in ("use_nearest_upsample", "final_tanh")}
    return ModelConfig.from_dict(
        {
            "encoder": {"config": {**encoder, "in_channels": 1, "latent_dim": 128}},
            "decoder": {"config": {"final_tanh": False, **half, "out_channels": 1, "latent_dim": 64}},
            "transformer": transformer and {"depth": 2, "config": {"dim_heads": 32, **transformer}},
            "latent_dim": 64,
            "downsampling_ratio": math.prod(half["strides"]),
            "io_channels": 1,
        }
    )


@pytest.mark.parametrize(
    "options",
    [
        {"half": {"antialias_activation": True}},
        {"half": {"antialias_activation": True, "use_snake": False, "bias": False}},
        {"half": {"use_nearest_upsample": True, "strides": [3, 5], "final_tanh": True}},
        {"transformer": {"rotary_pos_emb": False, "attn_kwargs": {"qk_norm": "l2"}}},
        {"transformer": {"dim_heads": 64, "remove_norms": True, "use_abs_pos_emb": True}},
        {"transformer": {"ff_kwargs": {"use_conv": True, "conv_kernel_size": 5, "mult": 1}}},
        {"transformer": {"ff_kwargs": {"glu": False, "use_conv": True, "no_bias": True, "mult": 2}}},
        {"transformer": {"ff_kwargs": {"glu": False}, "norm_kwargs": {"bias": True, "fix_scale": True}}},
        {"transformer": {"conformer": True, "use_sinusoidal_emb": True, "norm_kwargs": {"bias": True}}},
    ],
    ids=str,
)
def test_options_pass_parity(options):
    torch.manual_seed(0)
    model_config = config(**options)
    port = torch_model.build(model_config)
    for tensor in port.state_dict().values():  # zeros and ones of the initialisation would hide mistakes
        tensor += 0.1 * torch.randn_like(tensor)
    state = {key: tensor.numpy() for key, tensor in port.state_dict().items()}
    model = build(model_config, keys.to_arrays(model_config, state))
    report = parity.compare(model, port, parity.probe_signal(605, 1))
    assert report.passed, report.table()
