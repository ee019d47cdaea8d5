"""How a model's weights start, where torch's own initialisation would damp the signal."""

import math

import jax.numpy as jnp
from flax import nnx

from earvae_jax.layers import Conv, ConvTranspose
from earvae_jax.oobleck import ResidualUnit
from earvae_jax.vae import EarVAE

_RESIDUAL_GAIN = 0.2  # of the convolutions that end the residual units, thirty in a row
_STD = 0.05  # of the latents: the decoder hears more signal than noise from the first step on
_OUTPUT_GAIN = 0.05  # of the last convolution: the residual units add up, and music is not of unit variance


def preserve_variance(model: EarVAE) -> None:
    """Sets gains and biases outside of the residual units so that a signal passes the network undamped.

    Torch's initialisation makes each convolution's output a third as strong (in variance) as its input; after
    the dozen between audio and audio little more than the biases is left.
    """
    residual = {
        id(conv)
        for _, unit in nnx.iter_modules(model)
        if isinstance(unit, ResidualUnit)
        for _, conv in nnx.iter_modules(unit)
    }
    for half in (model.encoder, model.decoder):
        for _, conv in nnx.iter_modules(half):
            if isinstance(conv, Conv) and id(conv) not in residual:
                _, inputs, outputs = conv.direction.shape
                # A gain belongs to an output and its whole fan-in, or, transposed, to an input.
                transposed = isinstance(conv, ConvTranspose)
                gain = math.sqrt(conv.stride * outputs / inputs) if transposed else 1.0
                conv.gain.set_value(jnp.full_like(conv.gain[...], gain))
                if conv.bias is not None:
                    conv.bias.set_value(jnp.zeros_like(conv.bias[...]))
    for _, unit in nnx.iter_modules(model):
        if isinstance(unit, ResidualUnit):
            *_, pointwise = unit.layers
            pointwise.gain.set_value(jnp.full_like(pointwise.gain[...], _RESIDUAL_GAIN))
    last = [layer for layer in model.decoder.layers if isinstance(layer, Conv)][-1]
    last.gain.set_value(jnp.full_like(last.gain[...], _OUTPUT_GAIN))
    bias = model.encoder.layers[-1].bias
    scale = math.log(math.expm1(_STD))  # its softplus is the deviation
    bias.set_value(bias[...].at[model.config.latent_dim :].set(scale))
