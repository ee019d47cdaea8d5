"""The PyTorch port against recordings of the published code."""

import json

import numpy as np
import pytest
from places import GOLDEN_MODELS
from tolerances import GOLDEN_OUTPUT, TORCH_ROUNDING

torch = pytest.importorskip("torch")

from earvae_jax.convert.torch_port import model as torch_model  # noqa: E402
from earvae_jax.convert.torch_port.layers import AntialiasedActivation, SnakeBeta  # noqa: E402


def load(folder):
    config = json.loads((folder / "config.json").read_text())
    state = torch.load(folder / "weights.pyt", weights_only=True)
    return torch_model.build(config, state), state, np.load(folder / "golden.npz")


def assert_recorded(actual, expected, name):
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual / scale, expected / scale, rtol=0, atol=GOLDEN_OUTPUT, err_msg=name)


@pytest.mark.parametrize("name", GOLDEN_MODELS)
def test_reproduces_the_recordings(golden, name):
    model, _, recorded = load(golden / name)
    for case in sorted({key.split("/")[0] for key in recorded.files}):
        audio, mean, z, noise = (
            torch.from_numpy(recorded[f"{case}/{key}"]) for key in ("audio", "mean", "z", "noise")
        )
        with torch.no_grad():
            actual = dict(zip(("mean", "scale"), model.encode(audio), strict=True))
            actual["decoded_mean"], actual["decoded_z"] = model.decode(mean), model.decode(z)
            actual["kl"] = model(audio, noise)[1]
        for key, value in actual.items():
            assert_recorded(value.numpy(), recorded[f"{case}/{key}"], f"{case}/{key}")


@pytest.mark.parametrize("name", ["tiny_44k", "tiny_48k"])
def test_reproduces_every_recorded_layer(golden, name):
    model, _, recorded = load(golden / name)
    modules = dict(model.named_modules())
    actual = {}
    for key in recorded.files:
        if "/act/" in key:
            modules[key.split("/act/")[1]].register_forward_hook(
                lambda module, inputs, output, key=key: actual.__setitem__(key, output.numpy())
            )
    with torch.no_grad():
        model.encode(torch.from_numpy(recorded["short/audio"]))
        model.decode(torch.from_numpy(recorded["short/mean"]))
    assert len(actual) > 15
    for key, value in actual.items():
        assert_recorded(value, recorded[key], key)


@pytest.mark.parametrize("name", GOLDEN_MODELS)
def test_state_dict_has_the_published_keys_in_order(golden, name):
    model, state, _ = load(golden / name)
    assert list(model.state_dict()) == list(state)


def test_double_runs_in_float64_throughout(golden):
    for name in ("tiny_44k", "options_transformer"):
        model, _, _ = load(golden / name)
        model.double()
        outputs = []
        for module in model.modules():
            module.register_forward_hook(lambda m, i, output, seen=outputs: seen.append(output))
        audio = torch.randn(1, 2, 4 * 1024, dtype=torch.float64)
        with torch.no_grad():
            model.decode(model.encode(audio)[0])
        assert len(outputs) > 100
        assert all(output.dtype == torch.float64 for output in outputs)


def test_fold_weight_norm_keeps_the_function(golden):
    model, _, recorded = load(golden / "tiny_44k")
    torch_model.fold_weight_norm(model)
    assert not any(key.endswith("weight_g") for key in model.state_dict())
    with torch.no_grad():
        audio = model.decode(torch.from_numpy(recorded["short/mean"]))
    assert_recorded(audio.numpy(), recorded["short/decoded_mean"], "decoded_mean")


@pytest.mark.parametrize("act", [torch.nn.ELU(), SnakeBeta(3)])
@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_antialiased_activation_is_alias_free_torch(act, length):
    alias_free = pytest.importorskip("alias_free_torch")
    ours, theirs = AntialiasedActivation(act), alias_free.Activation1d(act)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=0, atol=TORCH_ROUNDING)
    x = 3 * torch.randn(2, 3, length, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=TORCH_ROUNDING)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rotary_pos_emb": False}, set()),
        ({"use_abs_pos_emb": True, "abs_pos_emb_max_length": 50}, {"transformers.pos_emb.emb.weight"}),
        ({"remove_norms": True, "attn_kwargs": {"qk_norm": "l2"}}, {"transformers.rotary_pos_emb.inv_freq"}),
        (
            {"ff_kwargs": {"glu": False, "use_conv": True, "no_bias": True}},
            {"transformers.layers.0.ff.ff.0.1.weight", "transformers.layers.0.ff.ff.2.weight"},
        ),
        ({"norm_kwargs": {"bias": True, "fix_scale": True}}, {"transformers.layers.0.ff_norm.beta"}),
    ],
)
def test_transformer_options_leave_their_traces(golden, changes, expected):
    config = json.loads((golden / "tiny_44k" / "config.json").read_text())
    config["transformer"]["config"].update(changes)
    model = torch_model.build(config)
    keys = set(model.state_dict())
    assert expected <= keys
    assert changes.get("rotary_pos_emb", True) == ("transformers.rotary_pos_emb.inv_freq" in keys)
    assert changes.get("remove_norms", False) != ("transformers.layers.1.pre_norm.gamma" in keys)
    buffers = {name for name, _ in model.named_buffers()}
    assert ("transformers.layers.0.pre_norm.beta" in buffers) == (
        not changes.get("remove_norms") and not changes.get("norm_kwargs", {}).get("bias")
    )
    assert model.decode(torch.randn(1, 64, 20)).shape == (1, 2, 20 * 1024)


def test_absolute_positions_refuse_longer_sequences(golden):
    config = json.loads((golden / "tiny_44k" / "config.json").read_text())
    config["transformer"]["config"].update(use_abs_pos_emb=True, abs_pos_emb_max_length=10)
    with pytest.raises(ValueError, match="11 latents exceed abs_pos_emb_max_length 10"):
        torch_model.build(config).decode(torch.randn(1, 64, 11))
