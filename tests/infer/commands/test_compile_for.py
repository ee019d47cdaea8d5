"""`--compile-for` of the commands on files and of the benchmark, with this machine in a target's place."""

import json

import compiling_here
import numpy as np
import pytest

from earvae_jax.audio.writer import write
from earvae_jax.targets import compiling, devices

pytestmark = pytest.mark.usefixtures("quick_compilation")

RATE = 8000


@pytest.fixture
def here(monkeypatch):
    """Compilers are at hand and compile for this machine."""
    monkeypatch.setattr(devices, "_is_installed", lambda module: True)
    monkeypatch.setattr(compiling, "_WORKER", compiling_here.WORKER)


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "in" / "song.wav"
    write(path, 0.1 * np.random.default_rng(0).standard_normal((4000, 2)).astype(np.float32), RATE)
    return path


def test_the_report_of_reconstructing(earvae, here, song, small_checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    call = ("reconstruct", song, "--checkpoint", small_checkpoint, "--output-dir", out)
    status, lines = earvae(*call, "--compile-for", "h100x1")
    assert status == 0, lines
    assert not out.exists()
    printed = capsys.readouterr().out
    assert "reconstruct" not in printed
    assert "encode and decode song.wav (0.5 s) with small.safetensors, float32" in printed
    for half in ("encode", "decode"):
        assert f"| {half} 1 × " in printed
    assert "that JAX hands out: fits" in printed
    assert "largest --batch-size that fits: " in printed
    assert "never a speed" in printed


def test_one_object_of_encoding_and_decoding(earvae, here, song, small_checkpoint, tmp_path, capsys):
    latents = tmp_path / "latents"
    encode = ("encode", song, "--checkpoint", small_checkpoint, "--output-dir", latents)
    asked = ("--compile-for", "v5e", "--json", "--skip-largest")
    assert earvae(*encode, *asked)[0] == 0
    (program,) = json.loads(capsys.readouterr().out)["programs"]
    assert program["name"].startswith("encode")
    assert program["kernels"] > 0 and program["bytes"] > 0
    assert earvae(*encode)[0] == 0
    capsys.readouterr()
    decode = ("decode", latents, "--checkpoint", small_checkpoint, "--output-dir", tmp_path / "made")
    assert earvae(*decode, *asked)[0] == 0
    values = json.loads(capsys.readouterr().out)
    assert values["programs"][0]["name"].startswith("decode")
    assert values["device"] == "TPU v5 lite"
    assert not (tmp_path / "made").exists()


def test_files_that_cannot_be_read_are_left_out(earvae, here, song, small_checkpoint, tmp_path, capsys):
    (song.parent / "broken.wav").write_bytes(b"RIFF nothing")
    call = ("encode", song.parent, "--checkpoint", small_checkpoint, "--output-dir", tmp_path / "out")
    asked = ("--compile-for", "h100", "--json", "--skip-largest")
    status, lines = earvae(*call, *asked)
    assert status == 0, lines
    assert any("broken.wav" in line and "is left out" in line for line in lines)
    song.unlink()
    status, lines = earvae(*call, *asked)
    assert status == 2
    assert "no file is left to compile for" in lines[-1]


def test_the_benchmark(earvae, here, small_checkpoint, tmp_path, capsys):
    written = tmp_path / "figures.json"
    call = ("benchmark", "--checkpoint", small_checkpoint, "--seconds", "0.1", "--compile-for", "a100")
    assert earvae(*call, "--skip-largest", "--json", written)[0] == 0
    assert "small.safetensors, float32" in capsys.readouterr().out
    names = [program["name"].split()[0] for program in json.loads(written.read_text())["programs"]]
    assert names == ["encode", "decode"]
    assert earvae(*call, "--skip-largest", "--json")[0] == 0
    assert json.loads(capsys.readouterr().out)["target"] == "a100"


ENCODE = ("encode", "{song}", "--checkpoint", "{model}", "--output-dir", "{out}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*ENCODE, "--compile-for", "h200"), "no accelerator 'h200' to compile for; there are h100, a100"),
        ((*ENCODE, "--compile-for", "h100x12"), "more than 8 come in multiples of 8"),
        ((*ENCODE, "--json"), "--json goes with --compile-for TARGET"),
        ((*ENCODE, "--skip-largest"), "--skip-largest goes with --compile-for TARGET"),
        ((*ENCODE, "--compile-timeout", "5"), "--compile-timeout goes with --compile-for TARGET"),
        ((*ENCODE, "--compile-for", "h100", "--compile-timeout", "0"), "not a positive number of seconds"),
        ((*ENCODE, "--compile-for", "h100", "--devices", "2"), "--devices 2"),
        (("encode", "{out}/none", *ENCODE[2:], "--compile-for", "h100"), "no such file or folder"),
        (("encode", "-", *ENCODE[2:], "--compile-for", "h100"), "standard input does not have"),
        (("benchmark", "--config", "{out}/none.json", "--compile-for", "h100"), "none.json"),
    ],
)
def test_wrong_calls_are_one_line(earvae, here, song, small_checkpoint, tmp_path, words, message):
    places = {"song": song, "model": small_checkpoint, "out": tmp_path}
    status, lines = earvae(*(word.format(**places) for word in words))
    assert status == 2
    assert message in lines[-1], lines
    assert sum(line.startswith("error:") for line in lines) <= 1


def test_without_the_compiler(earvae, song, small_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_is_installed", lambda module: False)
    call = ("encode", song, "--checkpoint", small_checkpoint, "--output-dir", tmp_path / "out")
    for target, package in {"h100": "jax[cuda12]", "v6e": "jax[tpu]"}.items():
        status, lines = earvae(*call, "--compile-for", target)
        assert status == 2
        assert f"run: pip install '{package}==" in lines[-1]
        assert len(lines) == 1
