"""The page's own program cuts windows that are exact, with what the metadata says of a model."""

import json

import exports
import numpy as np
import pytest
import small_models
from tolerances import WINDOWS_IN_FLOAT64
from whole_file import whole_file_of

from earvae_jax.checkpoints import CheckpointInfo
from earvae_jax.convert import to_torch
from earvae_jax.convert.export.metadata import describe

torch = pytest.importorskip("torch")


def page_program(model):
    """`encode` and `decode` of the page, whose `run` is the port here: it has the layout of ONNX."""
    from earvae_jax.convert.torch_port.model import build

    port = build(model.config, to_torch.state_dict(model)).double()

    def run(name, values):
        values = torch.from_numpy(np.ascontiguousarray(values))
        with torch.no_grad():
            if name == "encoder":
                mean, scale = port.encode(values)
                return mean.numpy(), port.std(scale).numpy()
            if name == "transformer":
                return (port.transformers(values.transpose(1, 2)).transpose(1, 2).numpy(),)
            return (port.decoder(values).numpy(),)

    facts = json.loads(json.dumps(describe(CheckpointInfo(model.config, "", {}), "")))
    text = exports.program("def windows")
    functions = text[text.index("def windows") : text.index("song = ")].replace("size=256", "size=7")
    namespace = {"np": np, "run": run, "ratio": model.config.downsampling_ratio, "facts": facts}
    exec(functions, namespace)
    return namespace["encode"], namespace["decode"]


@pytest.mark.parametrize("kind", small_models.KINDS)
@pytest.mark.parametrize(("latents", "rest"), [(0, 1), (50, 0), (50, 1)])
def test_windows_give_the_answer_of_the_whole_file(kind, latents, rest):
    """Of one sample, of whole latents (where an odd stride needs one more), and of one sample more."""
    model = small_models.model(small_models.KINDS[kind])
    encode, decode = page_program(model)
    whole_encode, whole_decode = whole_file_of(model)
    samples = latents * model.config.downsampling_ratio + rest
    audio = np.random.default_rng(0).standard_normal((samples, 2))
    mean, _ = whole_encode(audio)
    found = encode(audio.T).T
    assert found.shape == mean.shape
    np.testing.assert_allclose(found, mean, rtol=0, atol=WINDOWS_IN_FLOAT64 * np.abs(mean).max())
    expected = whole_decode(mean)[:samples]
    found = decode(mean.T, samples).T
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=WINDOWS_IN_FLOAT64 * np.abs(expected).max())
