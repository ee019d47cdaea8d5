"""`earvae convert`, as it is called."""

import subprocess
import sys

import pytest

from earvae_jax import checkpoints
from earvae_jax.convert import command

pytestmark = pytest.mark.usefixtures("quick_compilation")

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")


def earvae(*words, without=None):
    """Runs the command in a process of its own, where the module `without` is not installed."""
    program = f"import sys; sys.modules.update({{{without!r}: None}})\n" if without else ""
    program += "from earvae_jax.command import main; main()"
    words = [str(word) for word in words]
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )


def test_there_and_back(golden, tmp_path):
    folder = golden / "tiny_48k"
    there = earvae(
        "convert", "from-torch", folder / "weights.pyt", tmp_path / "model",
        "--config", folder / "config.json", "--sample-rate", "48000",
    )  # fmt: skip
    assert there.returncode == 0, there.stderr
    assert checkpoints.read_info(tmp_path / "model").config.sample_rate == 48_000
    back = earvae("convert", "to-torch", tmp_path / "model", tmp_path / "weights.pyt")
    assert back.returncode == 0, back.stderr
    ours, theirs = (
        torch.load(path, weights_only=True) for path in (tmp_path / "weights.pyt", folder / "weights.pyt")
    )
    assert list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("from-torch", "missing.pyt", "out"), "missing.pyt: no such weights file"),
        (("from-torch", "{tiny}", "out"), "--sample-rate"),
        (("from-torch", "{tiny}", "out", "--config", "missing.json"), "missing.json"),
        (("from-torch", "{tiny}"), "OUT_DIR"),
        (("to-torch", "missing", "out.pyt"), "missing: no such checkpoint"),
        (("sideways",), "sideways"),
    ],
)
def test_wrong_calls_are_one_line_and_exit_2(golden, words, said):
    words = [word.format(tiny=golden / "tiny_44k" / "weights.pyt") for word in words]
    run = earvae("convert", *words)
    lines = [line for line in run.stderr.splitlines() if line]
    assert run.returncode == 2 and len(lines) == 1 and said in lines[0], run.stderr


def test_torch_is_asked_for_where_it_is_needed(golden, tmp_path):
    pyt = golden / "tiny_48k" / "weights.pyt"
    for words in (
        ("convert", "from-torch", pyt, "out"),
        ("convert", "to-torch", "model", "out.pyt"),
        ("parity", pyt),
    ):
        run = earvae(*words, without="torch")
        lines = run.stderr.splitlines()
        assert run.returncode == 2 and len(lines) == 1, run.stderr
        assert "pip install 'earvae-jax[torch]'" in lines[0]
    state = {key: tensor.clone() for key, tensor in torch.load(pyt, weights_only=True).items()}
    safetensors_torch.save_file(state, tmp_path / "weights.safetensors")
    words = ("from-torch", tmp_path / "weights.safetensors", tmp_path / "model", "--no-final-tanh")
    run = earvae("convert", *words, "--sample-rate", "48000", without="torch")
    assert run.returncode == 0, run.stderr


def test_flags_state_what_tensors_do_not():
    import argparse

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = ["from-torch", "a", "b", "--sample-rate", "32000", "--dim-heads", "16", "--no-final-tanh"]
    stated = command.stated_options(parser.parse_args(words))
    assert (stated.sample_rate, stated.dim_heads, stated.final_tanh) == (32_000, 16, False)
    assert command.stated_options(parser.parse_args(["from-torch", "a", "b"])).final_tanh is None
