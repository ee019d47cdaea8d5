"""Parity with the user's clone of the published code; a small clone is written here."""

import json
import sys
from types import ModuleType

import pytest
from tolerances import TORCH_ROUNDING

from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig

torch = pytest.importorskip("torch")

from earvae_jax.convert.parity import published_code  # noqa: E402
from earvae_jax.convert.torch_port import model as torch_model  # noqa: E402
from earvae_jax.convert.torch_port.layers import AntialiasedActivation  # noqa: E402

# As the published code does it: generic module names, two packages for a few layers, one entry class.
ENTRY = """
from alias_free_torch import Activation1d
from dac.nn.layers import Snake1d, WNConv1d, WNConvTranspose1d
from earvae_jax.model.config import ModelConfig
from earvae_jax.convert.torch_port.model import TorchEarVAE

from .blocks import widths

class EAR_VAE(TorchEarVAE):
    def __init__(self, model_config=None):
        assert "sample_rate" not in model_config and "bias" not in model_config["encoder"]["config"]
        super().__init__(ModelConfig.from_dict(model_config))
        c_in, c_out = widths(model_config)
        self.encoder.layers[0] = WNConv1d(c_in, c_out, kernel_size=7, padding=3)
        up = self.decoder.layers[1].layers[1].weight_v.shape
        s = up[2] // 2
        self.decoder.layers[1].layers[1] = WNConvTranspose1d(up[0], up[1], 2 * s, stride=s, padding=s // 2)
        self.unused = (Snake1d(4), Activation1d) and None
"""
BLOCKS = """
def widths(config):
    options = config["encoder"]["config"]
    return options["in_channels"] if "in_channels" in options else 2, options["channels"]
"""


@pytest.fixture
def clone(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "ear_vae.py").write_text(ENTRY)
    (tmp_path / "model" / "blocks.py").write_text(BLOCKS)
    return tmp_path


@pytest.fixture
def tiny(golden):
    folder = golden / "tiny_44k"
    config = {**json.loads((folder / "config.json").read_text()), "sample_rate": 44_100}
    return ModelConfig.from_dict(config), torch.load(folder / "weights.pyt", weights_only=True)


@pytest.fixture
def missing(monkeypatch):
    """Neither of the two packages is installed."""
    find_spec = published_code.importlib.util.find_spec
    packages = ("dac", "alias_free_torch")
    monkeypatch.setattr(
        published_code.importlib.util, "find_spec", lambda name: None if name in packages else find_spec(name)
    )


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_the_clone_computes_what_the_port_does(clone, tiny, missing):
    own = sys.modules["model"] = ModuleType("model")  # the caller may have a module of that name
    path = list(sys.path)
    try:
        theirs, ours = published_code.build(clone, *tiny), torch_model.build(*tiny)
        assert sys.modules["model"] is own
    finally:
        del sys.modules["model"]
    assert sys.path == path
    assert not {"dac", "dac.nn.layers", "model.ear_vae", "model.blocks"} & sys.modules.keys()
    assert getattr(sys.modules.get("alias_free_torch"), "Activation1d", None) is not AntialiasedActivation
    assert type(theirs).__module__ == "model.ear_vae"
    audio = torch.randn(1, 2, 4_096, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        latents = theirs.encode(audio)[0]
        torch.testing.assert_close(latents, ours.encode(audio)[0], rtol=0, atol=TORCH_ROUNDING)
        torch.testing.assert_close(theirs.decode(latents), ours.decode(latents), rtol=0, atol=TORCH_ROUNDING)


def refusal(clone, tiny):
    with pytest.raises(UserError) as caught:
        published_code.build(clone, *tiny)
    assert "\n" not in str(caught.value) and str(clone) in str(caught.value)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_a_clone_that_does_not_fit_is_refused(clone, tiny, missing):
    assert "model/ear_vae.py" in refusal(clone / "model", tiny)
    config, state = tiny
    assert "surplus" in refusal(clone, (config, {**state, "surplus": torch.zeros(1)}))
    blocks = clone / "model" / "blocks.py"
    blocks.write_text("import a_package_that_nobody_has\n")
    assert "needs a_package_that_nobody_has" in refusal(clone, tiny)
    blocks.write_text("def widths(:\n")
    assert "does not build this model" in refusal(clone, tiny)
    blocks.write_text("")
    assert "cannot import name 'widths'" in refusal(clone, tiny)
