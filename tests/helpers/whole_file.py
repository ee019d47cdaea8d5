"""Codecs of small models with windows as short as can be, and the whole-file answer they must give."""

import functools
import math

import numpy as np
import pytest
import small_models
from tolerances import TILED

from earvae_jax.infer.codec import Codec
from earvae_jax.infer.engine.cutting import latent_count
from earvae_jax.receptive_field import decoder_context, encoder_context


def sizes_for(config) -> tuple[int, int]:
    """A short window and one of twice its length."""
    contexts = encoder_context(config), decoder_context(config)
    short = 8 * math.ceil((max(map(sum, contexts)) + 12) / 8)
    return short, 2 * short


@functools.cache
def codec_of(kind: str, batch_size: int = 1) -> Codec:
    config = small_models.KINDS[kind]
    return Codec(small_models.model(config), batch_size=batch_size, window_sizes=sizes_for(config))


@functools.cache
def whole_file(kind: str):
    """`whole_file_of` a small model."""
    return whole_file_of(small_models.model(small_models.KINDS[kind]))


def whole_file_of(model):
    """The published whole-file computation in float64, by the torch port: nothing to compile."""
    torch = pytest.importorskip("torch")
    from earvae_jax.convert import to_torch
    from earvae_jax.convert.torch_port import model as torch_model

    state = to_torch.state_dict(model)
    port = torch_model.build(model.config, state).double()

    def run(function, x):
        with torch.no_grad():
            outputs = function(torch.from_numpy(np.float64(x)).T[None])
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return [output[0].T.numpy() for output in outputs]

    def encode(audio):
        samples = latent_count(model.config, len(audio)) * model.config.downsampling_ratio
        mean, scale = run(port.encode, np.pad(audio, ((0, samples - len(audio)), (0, 0))))[:2]
        return mean, np.logaddexp(scale, 0) + model.config.std_offset

    return encode, lambda latents: run(port.decode, latents)[0]


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TILED * np.abs(expected).max())


def compare(codec, whole, samples, seed=0):
    encode, decode = whole
    audio = np.random.default_rng(seed).standard_normal((samples, 2), np.float32)
    latents = codec.encode(audio)
    mean, std = encode(audio)
    assert_close(latents.mean, mean)
    assert_close(latents.std, std)
    assert_close(codec.decode(latents), decode(latents.mean)[:samples])
