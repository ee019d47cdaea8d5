"""Small models of every kind of config, with weights that leave nothing at zero."""

import dataclasses

import numpy as np

from earvae_jax.model.antialias import kaiser_sinc_filter
from earvae_jax.model.config import DecoderConfig, EncoderConfig, ModelConfig, TransformerConfig
from earvae_jax.model.positions import RotaryEmbedding
from earvae_jax.model.vae import EarVAE
from earvae_jax.parameters import build, expected_arrays

SAMPLE_RATE = 8000


def config(
    strides: tuple[int, ...] = (2, 2),
    *,
    channels: int = 4,
    use_snake: bool = True,
    tied_activations: bool = True,
    std_offset: float = 0.0,
    antialias_activation: bool = False,
    use_nearest_upsample: bool = False,
    final_tanh: bool = False,
    bias: bool = True,
    latent_dim: int = 4,
    transformer: TransformerConfig | None = None,
) -> ModelConfig:
    """A stereo model at 8 kHz, of equal widths on every level."""
    shared = {
        "channels": channels,
        "c_mults": (1,) * len(strides),
        "strides": strides,
        "use_snake": use_snake,
        "tied_activations": tied_activations,
        "antialias_activation": antialias_activation,
        "bias": bias,
    }
    ratio = 1
    for stride in strides:
        ratio *= stride
    return ModelConfig(
        EncoderConfig(**shared, latent_dim=2 * latent_dim),
        DecoderConfig(
            **shared, latent_dim=latent_dim, use_nearest_upsample=use_nearest_upsample, final_tanh=final_tanh
        ),
        latent_dim=latent_dim,
        downsampling_ratio=ratio,
        transformer=transformer,
        sample_rate=SAMPLE_RATE,
        std_offset=std_offset,
    )


def model(model_config: ModelConfig, seed: int = 0) -> EarVAE:
    """A random model; what training starts at zero or one is random too, and shows when it is left out.

    Drawn in numpy: JAX would compile a program for the start of each array.
    """
    random = np.random.default_rng(seed)
    arrays = {}
    for name, array in sorted(expected_arrays(model_config).items()):
        kind = name.rsplit(".", 1)[-1]
        if kind.endswith("_filter"):
            value = kaiser_sinc_filter(0.25, 0.3, 12)
        elif kind == "inv_freq":
            value = RotaryEmbedding(model_config.transformer.rotary_dims).inv_freq[...]
        elif kind in ("gain", "gamma"):
            value = random.uniform(0.4, 0.8, array.shape)
        elif kind == "weight":
            value = random.uniform(-1, 1, array.shape) / np.sqrt(array.shape[0])
        elif kind == "direction":
            value = random.standard_normal(array.shape)
        else:  # biases, α and β
            value = random.uniform(-0.3, 0.3, array.shape)
        arrays[name] = np.asarray(value, np.float32)
    return build(model_config, arrays)


# Everything that changes how a config is cut into windows: even and odd strides, both ways up, antialiasing,
# ELU, two activations in a residual unit, the transformer.
KINDS = {
    "even strides": config((2, 4)),
    "untied, odd strides": config((2, 5), tied_activations=False, std_offset=1e-4),
    "odd strides": config((3, 2, 3), use_snake=False),
    "nearest": config((2, 3), use_nearest_upsample=True, final_tanh=True),
    "antialiased": config((2, 2), antialias_activation=True),
    "antialiased nearest, odd, without bias": config(
        (3, 2), antialias_activation=True, use_nearest_upsample=True, bias=False
    ),
    "transformer": config((2, 2), latent_dim=32, transformer=TransformerConfig(depth=1, dim_heads=32)),
}


def without_transformer(model_config: ModelConfig) -> ModelConfig:
    """The convolutions alone."""
    return dataclasses.replace(model_config, transformer=None)
