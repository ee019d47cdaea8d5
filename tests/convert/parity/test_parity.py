"""Parity reports: what they measure, and that the models pass them."""

import dataclasses
import json

import numpy as np
import pytest
from tolerances import GOLDEN_OUTPUT

from earvae_jax.audio.writer import write
from earvae_jax.parameters import build

torch = pytest.importorskip("torch")

from earvae_jax.convert import from_torch, keys, published  # noqa: E402
from earvae_jax.convert.config_from_tensors import Stated  # noqa: E402
from earvae_jax.convert.parity import command as parity_command  # noqa: E402
from earvae_jax.convert.parity import compare as parity  # noqa: E402
from earvae_jax.convert.torch_port import model as torch_model  # noqa: E402


def load(golden, name):
    folder = golden / name
    weights = from_torch.read(folder / "weights.pyt", config=folder / "config.json", stated=Stated(44_100))
    state = {key: torch.from_numpy(tensor) for key, tensor in weights.file.tensors.items()}
    return build(weights.config, weights.arrays), torch_model.build(weights.config, state)


@pytest.mark.parametrize("name", ["tiny_44k", "tiny_48k"])
def test_every_layer_reproduces_its_recording(golden, name):
    model, _ = load(golden, name)
    recorded = np.load(golden / name / "golden.npz")
    outputs = parity.jax_outputs(model, recorded["short/audio"].transpose(0, 2, 1))
    layers = [key.split("/act/")[1] for key in recorded.files if "/act/" in key]
    assert len(layers) > 15
    for layer in [*layers, "mean", "scale"]:
        expected = recorded[f"short/act/{layer}" if layer in layers else f"short/{layer}"]
        if not layer.startswith("transformers"):
            expected = expected.transpose(0, 2, 1)
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(
            outputs[layer] / scale, expected / scale, rtol=0, atol=GOLDEN_OUTPUT, err_msg=layer
        )


@pytest.mark.parametrize("name", ["tiny_44k", "options_elu_nearest_tanh", "options_transformer"])
def test_models_pass(golden, name):
    model, port = load(golden, name)
    report = parity.compare(model, port, parity.probe_signal(5_000, 2))
    assert report.passed, report.table()
    layers = sum(len(getattr(getattr(model, part), "layers", ())) for part in ("encoder", "decoder"))
    assert len(report.rows) >= layers + 3
    assert "passed" in report.table().splitlines()[-1]


def test_a_small_mistake_fails_from_its_layer_on(golden):
    model, port = load(golden, "tiny_44k")
    gain = model.decoder.layers[3].layers[1].gain
    gain.set_value(gain[...] * (1 + 3e-5))
    report = parity.compare(model, port, parity.probe_signal(4_096, 2))
    assert not report.passed
    failed = [row.name for row in report.rows if not row.passed]
    assert failed[0] == "decoder.layers.3" and failed[-1] == "reconstruction"
    assert "FAILED in" in report.table().splitlines()[-1]


def test_rows_measure_what_they_say():
    truth = np.array([[[2.0], [-4.0]]])
    theirs = np.array([[[2.0], [-3.6]]], np.float32)
    ours = np.array([[[2.8], [-4.0]]], np.float32)
    row = parity._row("x", ours, theirs, truth)
    assert row.scale == 4.0
    assert row.torch_error == pytest.approx(0.1, rel=1e-6)
    assert row.jax_error == pytest.approx(0.2, rel=1e-6)
    assert row.max_difference == pytest.approx(0.8, rel=1e-6)
    assert row.relative_difference == pytest.approx(np.hypot(0.8, 0.4) / np.hypot(2, 3.6), rel=1e-6)
    assert row.passed
    assert not dataclasses.replace(row, jax_error=0.21).passed
    assert dataclasses.replace(row, torch_error=0.0, jax_error=0.9e-6).passed
    assert not dataclasses.replace(row, jax_error=float("nan")).passed


@pytest.mark.slow
def test_full_size_model_with_random_weights():
    """One second through the 147.8 M parameters of the 44.1 kHz architecture."""
    config = published.PUBLISHED[0].config
    torch.manual_seed(0)
    port = torch_model.build(config)
    with torch.no_grad():  # what starts at zero would hide mistakes
        for name, parameter in port.named_parameters():
            if name.endswith((".alpha", ".beta")):
                parameter.normal_(0, 0.3)
            elif name.endswith(("to_out.weight", "ff.2.weight", "ff.2.bias")):
                parameter.normal_(0, 0.1)
    assert sum(parameter.numel() for parameter in port.parameters()) == pytest.approx(147.8e6, rel=1e-3)
    state = {key: tensor.numpy() for key, tensor in port.state_dict().items()}
    model = build(config, keys.to_arrays(config, state))
    report = parity.compare(model, port, parity.probe_signal(44_100, 2))
    assert report.passed, report.table()
    last = report.rows[-1]
    assert last.name == "reconstruction" and last.shape == (1, 43 * 1024, 2)
    assert last.jax_error <= last.torch_error, report.table()


def run(*words):
    import argparse

    parser = argparse.ArgumentParser()
    parity_command.add_arguments(parser)
    return parity_command.run(parser.parse_args([str(word) for word in words]))


def test_command_prints_and_writes_the_report(golden, tmp_path, capsys):
    weights = golden / "tiny_48k" / "weights.pyt"
    assert run(weights, "--no-final-tanh", "--json", tmp_path / "deep" / "report.json") == 0
    assert "reconstruction" in capsys.readouterr().out
    report = json.loads((tmp_path / "deep" / "report.json").read_text())
    assert report["passed"] and report["reference"] == "port" and report["rows"][-1]["jax_error"] < 1e-5


def test_command_fails_where_parity_does(golden, monkeypatch, capsys):
    row = parity.Row("mean", (1, 4, 64), 1e-3, 1e-3, scale=1.0, torch_error=1e-7, jax_error=1e-3)
    monkeypatch.setattr(parity, "compare", lambda *args: parity.Report((row,)))
    assert run(golden / "tiny_48k" / "weights.pyt", "--no-final-tanh") == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_multiple_of_eight_latents_is_compared(golden, tmp_path):
    model, _ = load(golden, "tiny_44k")
    ratio = model.config.downsampling_ratio
    assert parity_command._audio(None, model.config).shape == (1, 48 * ratio, 2)  # 1 s are 43.07
    for samples, latents in (
        (1, 8),
        (8 * ratio + 9, 8),
        (15 * ratio + 9, 8),
        (400 * ratio, 208),
    ):  # 5 s: 215.3
        write(tmp_path / "a.wav", np.ones((samples, 2), np.float32), 44_100)
        audio = parity_command._audio(tmp_path / "a.wav", model.config)
        assert audio.shape == (1, latents * ratio, 2)
        np.testing.assert_array_equal(audio[0, samples:], 0)
        assert audio[0, 0].all()
