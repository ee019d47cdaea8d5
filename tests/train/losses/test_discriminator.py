"""The discriminator against torch's own STFT, convolutions and weight norm."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from tolerances import DISCRIMINATOR

from earvae_jax.errors import UserError
from earvae_jax.parameters import named_arrays
from earvae_jax.train.config import DiscriminatorConfig
from earvae_jax.train.losses.discriminator import Discriminator

CONFIG = DiscriminatorConfig(n_ffts=(256, 64), filters=3, dilations=(1, 2, 4))


@pytest.fixture(scope="module")
def module():
    return Discriminator(CONFIG, 2, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def audio():
    return np.random.default_rng(0).standard_normal((2, 1500, 2)).astype(np.float32)


def test_judgements_and_feature_maps_are_torchs(module, audio):
    torch = pytest.importorskip("torch")
    from earvae_jax.train.studies import torch_step

    arrays = {name: np.asarray(array) for name, array in named_arrays(module).items()}
    port = torch_step.discriminator(CONFIG, 2, arrays)
    judgements, features = jax.jit(lambda x: module(x))(audio)
    assert len(judgements) == len(features) == 2
    with torch.no_grad():
        expected = [judge(torch.from_numpy(audio.swapaxes(1, 2).copy())) for judge in port]
    for judgement, maps, (wanted, wanted_maps) in zip(judgements, features, expected, strict=True):
        for ours, torchs in zip([judgement, *maps], [wanted, *wanted_maps], strict=True):
            torchs = torchs.permute(0, 2, 3, 1).numpy()
            assert ours.shape == torchs.shape
            np.testing.assert_allclose(ours, torchs, rtol=0, atol=DISCRIMINATOR * np.abs(torchs).max())


def test_sees_both_channels_and_their_phase(module, audio):
    judge = jax.jit(lambda x: module(x)[0][0])
    base = judge(audio)
    for changed in (audio[..., ::-1], audio * [1, -1], np.roll(audio, 7, axis=1)):
        assert np.abs(judge(changed.astype(np.float32)) - base).max() > 1e-3 * np.abs(base).max()


def test_initial_weights_are_torchs(module):
    """Uniform within 1/√fan-in, gains equal to the norms: the layers start as plain convolutions."""
    conv = module.discriminators[0].convs[1]
    direction = np.asarray(conv.direction[...])
    bound = (3 * 3 * 9) ** -0.5
    assert 0.9 * bound < np.abs(direction).max() <= bound
    np.testing.assert_allclose(conv.gain[...], np.sqrt(np.sum(direction**2, axis=(0, 1, 2))), rtol=1e-6)
    assert np.abs(np.asarray(conv.bias[...])).max() <= bound


def test_computes_in_bfloat16_when_asked(module, audio):
    judgements, features = jax.jit(lambda x: module(x, jax.numpy.bfloat16))(audio)
    exact, _ = jax.jit(lambda x: module(x))(audio)
    assert judgements[0].dtype == features[0][0].dtype == jax.numpy.bfloat16
    assert np.abs(judgements[0].astype(np.float32) - exact[0]).max() < 0.05 * np.abs(exact[0]).max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filters": 0}, "filters is 0; expected a positive number"),
        ({"n_ffts": ()}, r"n_ffts is \[\]; expected a list of sizes of at least 4"),
        ({"n_ffts": (2,)}, r"n_ffts is \[2\]; expected a list of sizes of at least 4"),
        ({"dilations": (1, 0)}, r"dilations is \[1, 0\]; expected positive numbers"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **change)
