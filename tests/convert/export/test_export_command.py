"""`earvae export` as it is called: what it says, what it leaves alone, and one line for what is wrong."""

import dataclasses
import subprocess
import sys

import pytest
import small_models

from earvae_jax import checkpoints, command
from earvae_jax.convert.export import agreement, onnx_models, stablehlo

pytestmark = pytest.mark.usefixtures("quick_compilation")

pytest.importorskip("flatbuffers")


@pytest.fixture(autouse=True)
def one_size(monkeypatch):
    """Of the command's own check."""
    monkeypatch.setattr(agreement, "SIZES", ((1, 2),))


def test_it_says_what_it_wrote_and_how_far_that_is(earvae, small_checkpoint, tmp_path):
    status, lines = earvae("export", small_checkpoint, tmp_path / "new" / "out", "--platforms", "cpu", "tpu")
    assert status == 0
    assert lines[0].startswith("StableHLO: at most ") and lines[0].endswith("from the model, at 2 latents")
    files = {path.name for path in (tmp_path / "new" / "out").iterdir()}
    assert files == {"encoder.stablehlo", "decoder.stablehlo", "weights.safetensors", "metadata.json"}
    assert {line.partition(":")[0] for line in lines[1:-1]} == files
    assert lines[-1] == f"wrote {tmp_path / 'new' / 'out'}"


def test_programs_for_other_devices_are_not_run(earvae, small_checkpoint, tmp_path):
    status, lines = earvae("export", small_checkpoint, tmp_path / "out", "--platforms", "tpu")
    assert status == 0
    assert lines[0] == "StableHLO: not run here, as no platform of it is this machine's"


def test_an_existing_folder_is_left_alone(earvae, small_checkpoint, tmp_path):
    out, words = tmp_path / "out", ("--platforms", "cpu")
    assert earvae("export", small_checkpoint, out, *words)[0] == 0
    (out / "metadata.json").write_text("{}")
    status, lines = earvae("export", small_checkpoint, out, *words)
    assert status == 2 and lines == [f"error: {out}: exists already; choose another name or pass --overwrite"]
    assert (out / "metadata.json").read_text() == "{}"
    assert earvae("export", small_checkpoint, out, "--overwrite", *words)[0] == 0
    assert (out / "metadata.json").read_text() != "{}"
    (out / "song.wav").write_text("mine")
    status, lines = earvae("export", small_checkpoint, out, "--overwrite", *words)
    assert status == 2 and lines == [f"error: {out}: this folder holds other things; name another"]
    assert (out / "song.wav").exists()
    status, lines = earvae("export", small_checkpoint, out / "song.wav", "--overwrite", *words)
    assert status == 2 and lines == [f"error: {out / 'song.wav'}: is a file; name the folder to write"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "torchscript"), "torchscript"),
        (("--platforms", "cpu", "metal"), "metal"),
        (("--opset", "eighteen"), "eighteen"),
        ((), "OUT"),
    ],
)
def test_wrong_words_are_one_line_and_exit_2(capfd, words, said):
    words = ["export", "model.safetensors", *(("out", *words) if words else ())]
    with pytest.raises(SystemExit) as ended:
        command._parse(["earvae", *words])
    (line,) = capfd.readouterr().err.splitlines()
    assert ended.value.code == 2 and said in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("missing.safetensors", "out"), "missing.safetensors: no such checkpoint"),
        (("{model}", "out", "--format", "onnx", "--opset", "9"), "opset 9: choose from 18 to 23"),
        (("{model}", "out", "--format", "onnx", "--opset", "99"), "opset 99: choose from 18 to 23"),
        (("{rateless}", "out"), "its config does not say the model's sample rate"),
    ],
)
def test_what_is_wrong_is_one_line(earvae, small_checkpoint, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(small_models.KINDS["even strides"], sample_rate=None)
    checkpoints.save(tmp_path / "rateless.safetensors", small_models.model(config))
    places = {"model": small_checkpoint, "rateless": "rateless.safetensors"}
    status, lines = earvae("export", *(word.format(**places) for word in words))
    assert status == 2 and len(lines) == 1 and said in lines[0], lines
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("format", "package", "extra"),
    [
        ("stablehlo", "flatbuffers", "stablehlo"),
        ("both", "flatbuffers", "stablehlo"),
        ("both", "torch", "onnx"),
        ("onnx", "onnx", "onnx"),
        ("onnx", "onnxscript", "onnx"),
        ("onnx", "onnxruntime", "onnx"),
    ],
)
def test_a_missing_package_names_the_extra(
    earvae, small_checkpoint, tmp_path, monkeypatch, format, package, extra
):
    for each in ("flatbuffers", "torch", "onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, each, sys if each != package else None)
    status, lines = earvae("export", small_checkpoint, tmp_path / "out", "--format", format)
    assert status == 2 and not (tmp_path / "out").exists()
    assert lines == [
        f"error: this needs {package}, which is not installed; run: pip install 'earvae-jax[{extra}]'"
    ]


def test_stablehlo_needs_nothing_of_onnx(small_checkpoint, tmp_path):
    """In a process of its own, where none of that extra's packages is installed."""
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnx', 'onnxscript', 'onnxruntime')))\n"
        "from earvae_jax.command import main; main()"
    )
    words = [
        sys.executable,
        "-c",
        program,
        "export",
        small_checkpoint,
        tmp_path / "out",
        "--platforms",
        "cpu",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "metadata.json").exists()


def test_the_commands_words_are_the_librarys():
    """The command declares them without importing what is slow to import."""
    import argparse

    from earvae_jax.convert.export import command as export_command
    from earvae_jax.convert.export import folder

    parser = argparse.ArgumentParser()
    export_command.add_arguments(parser)
    choices = {action.dest: action.choices for action in parser._actions}
    assert tuple(choices["format"]) == folder.FORMATS
    assert tuple(choices["platforms"]) == stablehlo.PLATFORMS
    defaults = parser.parse_args(["model", "out"])
    assert defaults.opset == onnx_models.OPSET
    assert f"to {onnx_models.OPSETS[-1]}" in next(a.help for a in parser._actions if a.dest == "opset")
