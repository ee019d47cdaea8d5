"""What kinds of weights files are read, and which are refused."""

import argparse
import json
import os
import re
import zipfile

import numpy as np
import pytest
from tolerances import FOLDED_WEIGHT

from earvae_jax.errors import UserError
from earvae_jax.parameters import build

torch = pytest.importorskip("torch")

import safetensors.torch  # noqa: E402
from weight_files import folded, parametrized  # noqa: E402

from earvae_jax.convert import from_torch, state_dict  # noqa: E402
from earvae_jax.convert.config_from_tensors import Stated  # noqa: E402
from earvae_jax.convert.torch_port import model as torch_model  # noqa: E402

KNOWN = Stated(sample_rate=44_100, dim_heads=32, final_tanh=False)
TIED = "encoder.layers.1.layers.0.layers.{}.alpha"


@pytest.fixture
def weights(golden, tmp_path):
    """Writes the tiny model's state dict, changed, and returns its path."""

    def write(change=lambda state: None, name="weights.pyt"):
        state = torch.load(golden / "tiny_44k" / "weights.pyt", weights_only=True)
        state = change(state) or state
        path = tmp_path / name
        if path.suffix == ".safetensors":
            safetensors.torch.save_file({key: tensor.clone() for key, tensor in state.items()}, path)
        else:
            torch.save(state, path)
        return path

    return write


@pytest.fixture
def expected(golden):
    """The tensors of the tiny model."""
    return state_dict.read(golden / "tiny_44k" / "weights.pyt").tensors


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for key, tensor in expected.items():
        assert np.array_equal(actual[key], tensor), key


def refusal(path, config=None):
    with pytest.raises(UserError) as caught:
        from_torch.read(path, config=config, stated=KNOWN)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"gen": state, "disc": {"layers.0.weight": torch.zeros(3)}},
        lambda state: {f"module.{key}": tensor for key, tensor in state.items()},
        lambda state: {"state_dict": {f"autoencoder.{key}": tensor for key, tensor in state.items()}},
    ],
)
def test_wrapped_state_dicts(weights, expected, wrap):
    assert_same(state_dict.read(weights(wrap)).tensors, expected)


def test_the_average_of_the_weights_is_preferred(weights, expected):
    def wrap(state):
        worse = {key: tensor + 1 for key, tensor in state.items()}
        average = {f"ema_model.{key}": tensor for key, tensor in state.items()}
        online = {f"online_model.{key}": tensor for key, tensor in worse.items()}
        return {"gen": worse, "gen_ema": {"step": torch.tensor(7), **online, **average}}

    file = state_dict.read(weights(wrap))
    assert file.prefix == "gen_ema.ema_model."
    assert_same(file.tensors, expected)


def test_safetensors(weights, expected):
    assert_same(state_dict.read(weights(name="weights.safetensors")).tensors, expected)


def test_safetensors_with_shared_tensors_stored_once(golden, tmp_path):
    config = json.loads((golden / "tiny_44k" / "config.json").read_text())
    state = torch.load(golden / "tiny_44k" / "weights.pyt", weights_only=True)
    model = torch_model.build(config, state)
    safetensors.torch.save_model(model, str(tmp_path / "weights.safetensors"))
    read = from_torch.read(tmp_path / "weights.safetensors", stated=KNOWN)
    assert read.arrays["encoder.layers.1.layers.0.layers.0.alpha"].shape == (8,)


def test_half_precision_becomes_float32(weights):
    path = weights(lambda s: {k: t.bfloat16() for k, t in s.items()}, "weights.safetensors")
    read = from_torch.read(path, stated=KNOWN)
    assert {array.dtype for array in read.arrays.values()} == {np.dtype(np.float32)}


def test_newer_weight_norm_keys(weights, expected):
    assert_same(state_dict.read(weights(parametrized)).tensors, expected)


def folded_with_a_silent_channel(state):
    result = folded(state)
    result["decoder.layers.7.weight"][1] = 0  # it has no direction
    return result


def test_folded_weight_norm(weights):
    path = weights(folded_with_a_silent_channel)
    state = torch.load(path, weights_only=True)
    read = from_torch.read(path, stated=KNOWN)
    model = build(read.config, read.arrays)
    for half in (model.encoder, model.decoder):
        key = f"{'encoder' if half is model.encoder else 'decoder'}.layers.7.weight"
        kernel = np.asarray(half.layers[7].kernel).T
        np.testing.assert_allclose(kernel, state[key], rtol=FOLDED_WEIGHT, atol=0)
    kernel = np.asarray(model.decoder.layers[1].layers[1].kernel).transpose(1, 2, 0)
    np.testing.assert_allclose(kernel, state["decoder.layers.1.layers.1.weight"], rtol=FOLDED_WEIGHT, atol=0)


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("/nowhere/at/all",)


@pytest.mark.parametrize(
    ("content", "named"),
    [({"a": RunsCode()}, "mkdir"), ({"hyper": argparse.Namespace(a=1)}, "argparse.Namespace")],
)
def test_files_that_would_run_code_are_refused(tmp_path, content, named):
    path = tmp_path / "weights.ckpt"
    torch.save(content, path)
    message = refusal(path)
    assert "wants to run code" in message and named in message


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_truncated_files_are_refused(golden, weights, tmp_path, kind, kept):
    path = weights(name="weights.safetensors" if kind == "safetensors" else "weights.pyt")
    if kind == "legacy":
        state = torch.load(path, weights_only=True)
        torch.save(state, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    assert re.search("damaged|readable|neither", refusal(path))


@pytest.mark.parametrize("head", [b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04"])
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_random_bytes_are_refused(tmp_path, head, name):
    path = tmp_path / name
    path.write_bytes(head + np.random.default_rng(0).bytes(5000))
    assert re.search("damaged|readable|neither", refusal(path))


def test_what_is_no_weights_file_is_refused(tmp_path):
    assert "no such weights file" in refusal(tmp_path / "missing.pyt")
    assert "a folder" in refusal(tmp_path)
    torch.save({"layers.0.weight": torch.zeros(3)}, tmp_path / "other.pt")
    assert "holds no εar-VAE weights" in refusal(tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    assert "holds no εar-VAE weights" in refusal(tmp_path / "list.pt")


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 337431388\n", "git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html><head><title>Restricted</title>", "a web page in place of the weights"),
        (b'{"error":"Invalid username or password."}', "a text in place of the weights"),
        (b"GGUF\x03\0\0\0" + bytes(100), "a GGUF file"),
        (b"", "an empty file"),
    ],
)
def test_what_lies_in_place_of_weights_is_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    assert said in refusal(tmp_path / name)


def test_coarse_numbers_are_refused_in_the_autoencoder_alone(weights, expected, tmp_path):
    path = weights(name="weights.safetensors")
    state = safetensors.torch.load_file(path)
    coarse = torch.ones(3).to(torch.float8_e4m3fn)
    safetensors.torch.save_file(
        {**state, "generator.weight": coarse, "encoder.layers.0.bias": coarse.clone()}, path
    )
    assert "encoder.layers.0.bias is stored in 8 bits or fewer" in refusal(path)
    beside = {f"pretransform.model.{key}": tensor for key, tensor in state.items()}
    safetensors.torch.save_file({**beside, "model.blocks.0.weight": coarse}, path)
    assert_same(state_dict.read(path).tensors, expected)


def test_damaged_contents_are_warned_of(weights, caplog):
    path = weights()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    from_torch.read(path, stated=KNOWN)
    assert "checksum" in caplog.text


def test_missing_extra_misshapen_and_untied_tensors_are_named_in_one_message(golden, weights):
    def damage(state):
        del state["decoder.layers.2.layers.1.bias"]
        state["encoder.surplus"] = torch.zeros(2)
        state["encoder.layers.7.bias"] = torch.zeros(5)
        state[TIED.format(2)] = state[TIED.format(2)] + 1

    path = weights(damage)
    for config in (None, golden / "tiny_44k" / "config.json"):
        message = refusal(path, config)
        for part in (
            "missing decoder.layers.2.layers.1.bias float32[32]",
            "unexpected encoder.surplus",
            "encoder.layers.7.bias is float32[5], not float32[128]",
            f"{TIED.format(0)} and {TIED.format(2)} differ",
        ):
            assert part in message


def test_missing_tensors_that_tell_the_config_are_named(golden, weights):
    def damage(state):
        del state["encoder.layers.3.layers.4.weight_v"]
        del state["decoder.layers.0.weight_v"]

    path = weights(damage)
    for config in (None, golden / "tiny_44k" / "config.json"):
        message = refusal(path, config)
        assert "missing encoder.layers.3.layers.4.weight_v" in message
        assert "missing decoder.layers.0.weight_v" in message


def test_non_finite_weights_are_warned_of_and_counted(weights, caplog):
    def damage(state):
        state["encoder.layers.0.bias"][:3] = torch.nan
        state["decoder.layers.0.bias"][0] = torch.inf

    from_torch.read(weights(damage), stated=KNOWN)
    assert "4 weights are NaN or infinite" in caplog.text
    assert "encoder.layers.0.bias (3)" in caplog.text


def _holds_itself(state):
    whole = {"state_dict": state}
    whole["again"] = whole
    return whole


def test_a_dict_that_holds_itself_is_read_once(weights, expected):
    assert_same(state_dict.read(weights(_holds_itself)).tensors, expected)


@pytest.mark.parametrize(
    "kind",
    [
        lambda tensor: tensor.to_sparse(),
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor.to("meta"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quantized tensor")
def test_tensors_that_no_weights_are_made_of_are_refused(weights, kind):
    path = weights(lambda state: {**state, "encoder.odd": kind(torch.ones(3, 4))})
    assert "encoder.odd is not a plain tensor of real numbers" in refusal(path)


def test_a_tensor_of_more_values_than_the_file_holds_is_not_made(weights):
    """A kilobyte that would take 8 TB."""
    path = weights(lambda state: {**state, "encoder.odd": torch.zeros(1).expand(2 * 10**12)})
    assert "encoder.odd has 2000000000000 values, but the file holds fewer" in refusal(path)


def test_compressed_archives_are_refused(weights, tmp_path):
    """They could be of any size; torch.save compresses nothing."""
    path = weights()
    with (
        zipfile.ZipFile(path) as whole,
        zipfile.ZipFile(tmp_path / "small.pyt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    assert "a compressed archive" in refusal(tmp_path / "small.pyt")


@pytest.mark.parametrize(
    "opcodes",
    [
        b"}]K\x01s.",  # a list as a key
        b"}" + b"(" * 100_000 + b".",
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02K\x03tR.",
        b"\xff.",
    ],
)
@pytest.mark.parametrize("archive", [True, False])
def test_odd_pickles_are_refused(golden, tmp_path, opcodes, archive):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"\x80\x02" + opcodes)
    if archive:
        with zipfile.ZipFile(golden / "tiny_44k" / "weights.pyt") as whole, zipfile.ZipFile(path, "w") as odd:
            for name in whole.namelist():
                odd.writestr(name, b"\x80\x02" + opcodes if name.endswith("data.pkl") else whole.read(name))
    refusal(path)


def test_a_key_with_a_line_break_stands_in_one_line(weights):
    assert "unexpected a\\nb" in refusal(weights(lambda state: {**state, "a\nb": torch.zeros(3)}))


@pytest.mark.parametrize("number", ["1000000000", "1" * 5000])
def test_a_layer_of_an_absurd_number_is_named_and_not_counted_up_to(weights, number):
    path = weights(lambda state: {**state, f"encoder.layers.{number}.layers.0.x": torch.zeros(3)})
    assert f"unexpected encoder.layers.{number}.layers.0.x" in refusal(path)
