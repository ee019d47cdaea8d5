"""`earvae benchmark`: what it measures is what the model does; a run on a small model is whole."""

import argparse
import inspect
import json
import subprocess
import sys
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from flax import nnx

from earvae_jax.errors import UserError
from earvae_jax.infer.benchmark import command as benchmark_command
from earvae_jax.infer.benchmark import contenders, convolution_peak
from earvae_jax.infer.benchmark import measure as benchmark
from earvae_jax.model.config import ModelConfig
from earvae_jax.system import compilation_cache

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIG = small_models.config((2, 4), channels=8)


def products(function, *arguments):
    """Products of all convolutions in a function, as its program says."""
    total = 0
    for equation in jax.make_jaxpr(function)(*arguments).eqns:
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            total += equation.outvars[0].aval.size * kernel[0] * kernel[1]
    return total


def test_operations_are_those_of_the_model():
    latents = 400
    model = small_models.model(CONFIG)
    encoder, decoder = nnx.split(model.encoder), nnx.split(model.decoder)
    counted = convolution_peak.operations_per_latent(CONFIG)
    audio = jnp.zeros((1, latents * CONFIG.downsampling_ratio, 2))
    encoding = products(lambda x: nnx.merge(*encoder)(x), audio)
    decoding = products(lambda x: nnx.merge(*decoder)(x), jnp.zeros((1, latents, CONFIG.latent_dim)))
    assert 2 * encoding == counted["encode"] * latents
    # The polyphase form computes one step beyond the end of each level.
    assert 2 * decoding == pytest.approx(counted["decode"] * latents, rel=1 / latents)
    assert counted["round trip"] == counted["encode"] + counted["decode"]


MEMORY = """
import numpy as np
from earvae_jax.system import machine
print(*(machine.memory_used_at_most(lambda: np.ones(size, np.uint8)) for size in (1, 1 << 27)))
"""


def test_memory_of_a_call():
    """In a process of its own: memory that another test freed is taken again without growth."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    if "None" in done.stdout:
        pytest.skip("this system does not tell the memory of a process")
    small, large = map(int, done.stdout.split())
    assert small < 1 << 26 <= large


def test_contenders_agree():
    pytest.importorskip("torch")
    model = small_models.model(CONFIG)
    generator = np.random.default_rng(0)
    audio = generator.standard_normal((80, 2)).astype(np.float32)
    latents = generator.standard_normal((10, CONFIG.latent_dim)).astype(np.float32)
    ours = contenders.codec_contender(model, audio, latents, "float32")
    (theirs,) = contenders.torch_contenders(model, audio, latents, "float32", with_compile=False)
    for stage in ours.stages:
        expected = theirs.stages[stage]()
        np.testing.assert_allclose(ours.stages[stage](), expected, atol=2e-5 * np.abs(expected).max())


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "small.json"
    path.write_text(json.dumps(CONFIG.to_dict()))
    return path


def run(monkeypatch, *flags):
    # The command turns the cache off for its process, which here is that of all tests.
    monkeypatch.setattr(compilation_cache, "enable_compilation_cache", lambda directory=None: None)
    parser = argparse.ArgumentParser()
    benchmark_command.add_arguments(parser)
    return benchmark_command.run(parser.parse_args([str(flag) for flag in flags]))


def test_command(monkeypatch, config_file, tmp_path, capsys):
    pytest.importorskip("torch")
    output = tmp_path / "out" / "benchmark.json"
    flags = ("--config", config_file, "--seconds", 0.05, "--repeats", 2, "--skip-compile", "--json", output)
    assert run(monkeypatch, *flags) == 0
    written = json.loads(output.read_text())
    table = capsys.readouterr().out
    assert written["model"] == "small"
    assert written["machine"]["processor"] in table
    named = {(row["contender"], row["stage"]) for row in written["rows"]}
    assert named == {
        (c, s) for c in ("earvae-jax", "torch eager") for s in ("encode", "decode", "round trip")
    }
    operations = convolution_peak.operations_per_latent(CONFIG)
    for row in written["rows"]:
        assert 0 < row["fastest"] <= row["median"] <= row["slowest"]
        assert row["realtime"] == pytest.approx(written["audio_seconds"] / row["median"])
        rate = operations[row["stage"]] * 50 / row["median"]  # 0.05 s at 8 kHz are 50 latents of 8 samples
        assert row["peak_fraction"] == pytest.approx(rate / written["peak"])
    assert written["peak"] == max(written["convolutions"].values())


@pytest.mark.parametrize(
    "name",
    ["yue2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("stable_audio_open", "ace_step_1.5"))],
)
def test_the_family_is_measured(name):
    """At a sixteenth of its width; the decoder of YuE2's odd stride makes fewer samples than it was given."""
    pytest.importorskip("torch")
    values = json.loads((resources.files("earvae_jax.configs") / f"{name}.json").read_text())
    for half in ("encoder", "decoder"):
        values[half]["config"]["channels"] //= 16
    model = small_models.model(ModelConfig.from_dict(values))
    result = benchmark.measure(model, name=name, seconds=0.2, repeats=1, with_compile=False)
    measured = {(row.contender, row.stage) for row in result.rows}
    stages = ("encode", "decode", "round trip")
    assert measured == {(who, stage) for who in ("earvae-jax", "torch eager") for stage in stages}


def test_jax_alone_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    result = benchmark.measure(small_models.model(CONFIG), name="small", seconds=0.01, repeats=1)
    assert {row.contender for row in result.rows} == {"earvae-jax"}
    assert "torch" in result.left_out["torch"] and "torch is left out: " in result.table()


def test_windows_of_the_codec_are_computed_together(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    contender = contenders.codec_contender(
        small_models.model(CONFIG), np.zeros((80, 2), np.float32), np.zeros((10, 4), np.float32), "float32",
        batch_size=3,
    )  # fmt: skip
    codec = inspect.getclosurevars(contender.stages["encode"]).nonlocals["codec"]
    assert codec.engine.batch_size.of(1024) == codec.engine.batch_size.of(64) == 3


def test_diffusers_is_a_contender(monkeypatch):
    pytest.importorskip("diffusers")
    config = small_models.config((2, 4), channels=8, tied_activations=False, std_offset=1e-4)
    model = small_models.model(config)
    result = benchmark.measure(
        model, name="small", seconds=0.01, repeats=1, with_compile=False, with_diffusers=True
    )
    assert {row.contender for row in result.rows} == {"earvae-jax", "torch eager", "diffusers"}
    random = np.random.default_rng(0)
    audio = random.standard_normal((80, 2)).astype(np.float32)
    latents = random.standard_normal((10, config.latent_dim)).astype(np.float32)
    theirs = contenders.diffusers_contender(model, audio, latents, "float32")
    ours = contenders.codec_contender(model, audio, latents, "float32")
    np.testing.assert_allclose(theirs.stages["encode"](), ours.stages["encode"]().mean, rtol=0, atol=2e-5)
    np.testing.assert_allclose(theirs.stages["decode"](), ours.stages["decode"](), rtol=0, atol=2e-5)
    other = small_models.model(small_models.KINDS["nearest"])
    with pytest.raises(UserError, match="diffusers has no model with"):
        contenders.diffusers_contender(other, audio, latents, "float32")


def test_the_plain_formulation_is_another_contender(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    model = small_models.model(CONFIG)
    result = benchmark.measure(model, name="small", seconds=0.01, repeats=1, with_plain=True)
    assert {row.contender for row in result.rows} == {"earvae-jax", "earvae-jax, plain"}


def test_a_contender_that_cannot_run_is_left_out(monkeypatch):
    def fail():
        raise RuntimeError("no compiler\nat all")

    broken = contenders.Contender("torch.compile", {"encode": fail}, lambda: None)
    monkeypatch.setattr(benchmark, "torch_contenders", lambda *_, **__: [broken])
    result = benchmark.measure(small_models.model(CONFIG), name="small", seconds=0.01, repeats=1)
    assert {row.contender for row in result.rows} == {"earvae-jax"}
    assert result.left_out == {"torch.compile": "no compiler"}


def test_output_that_cannot_be_written(monkeypatch, config_file, tmp_path):
    (tmp_path / "file").write_text("")
    flags = ("--config", config_file, "--seconds", 0.01, "--repeats", 1, "--skip-compile")
    with pytest.raises(UserError, match="cannot be written"):
        run(monkeypatch, *flags, "--json", tmp_path / "file" / "out.json")


def test_flags_are_checked():
    parser = argparse.ArgumentParser()
    benchmark_command.add_arguments(parser)
    for flags in (["--seconds", "0"], ["--repeats", "-1"], ["--seconds", "inf"], ["--repeats", "many"]):
        with pytest.raises(SystemExit):
            parser.parse_args(flags)
