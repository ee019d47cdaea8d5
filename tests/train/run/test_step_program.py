"""What `earvae train --compile-for` would run: the run's own steps and the state that they keep."""

import argparse
import json

import compiling_here
import jax
import pytest
import small_training

from earvae_jax.targets import compiling, devices
from earvae_jax.targets.devices import bytes_of_a_device
from earvae_jax.targets.reading import read
from earvae_jax.train.compile_for import train
from earvae_jax.train.run.step_program import StepProgram

pytestmark = pytest.mark.usefixtures("quick_compilation")


def plan(tmp_path, *overrides: str, **changes):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(small_training.config(**changes).to_dict()))
    arguments = argparse.Namespace(config=str(path), overrides=list(overrides))
    return train(arguments, jax.local_devices()[:1])


def test_both_steps_and_the_state(tmp_path):
    made = plan(tmp_path)
    assert [(program.name, program.runs) for program in made.programs] == [
        ("step, 4 × 1024 samples", 3),
        ("step with discriminator, 4 × 1024 samples", 5),
    ]
    state = StepProgram(small_training.config(), jax.local_devices()[:1]).state_shapes()
    assert sum(made.resident.values()) == bytes_of_a_device(state)
    # Adam keeps two numbers for each trained one.
    trained = [state.generator, state.discriminator]
    assert made.resident["optimizer"] == pytest.approx(2 * bytes_of_a_device(trained), abs=64)
    reading = read(made.programs[0].lower().compile())
    # What the generator's step does not touch, it neither gets nor gives back.
    assert reading.memory.arguments <= made.programs[0].held + 4 * 1024 * 2 * 4
    assert reading.memory.aliased > 0.5 * made.programs[0].held


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (("adversarial=null",), ["step, 4 × 1024 samples"]),
        (("adversarial.start_step=0",), ["step with discriminator, 4 × 1024 samples"]),
        (("adversarial.start_step=8",), ["step, 4 × 1024 samples"]),
        (("adversarial=null", "accumulate=2"), ["step, 4 × 1024 samples in 2 parts"]),
    ],
)
def test_the_steps_of_other_recipes(tmp_path, overrides, names):
    assert [program.name for program in plan(tmp_path, *overrides).programs] == names


def test_what_can_grow(tmp_path):
    batch, crop = plan(tmp_path, "accumulate=2").growths
    assert (batch.what, batch.now, batch.step, batch.least) == ("data.batch_size", 4, 2, 2)
    (program,) = batch.programs(6)
    assert program.name == "step with discriminator, 6 × 1024 samples in 2 parts"
    assert (crop.what, crop.now, crop.step, crop.least) == (
        "data.crop_samples with data.batch_size=2",
        1024,
        8,
        64,
    )
    (program,) = crop.programs(512)
    assert program.name == "step with discriminator, 2 × 512 samples in 2 parts"
    assert program.lower().in_avals[0][1].shape == (2, 512, 2)


def test_the_command(earvae, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(devices, "_is_installed", lambda module: True)
    monkeypatch.setattr(compiling, "_WORKER", compiling_here.WORKER)
    path = tmp_path / "train.json"
    path.write_text(json.dumps(small_training.config().to_dict()))
    call = ("train", "--config", path, "--workdir", tmp_path / "run", "--set", "adversarial=null")
    status, lines = earvae(*call, "--compile-for", "h100", "--json", "--skip-largest")
    assert status == 0, lines
    values = json.loads(capsys.readouterr().out)
    assert values["memory"].keys() >= {"weights", "optimizer", "temporaries", "total", "usable", "fits"}
    assert values["programs"][0]["name"] == "step, 4 × 1024 samples"
    assert not (tmp_path / "run").exists()
    status, lines = earvae(*call, "--set", "data.batch_size=three", "--compile-for", "h100")
    assert status == 2 and "data.batch_size" in lines[-1]
    status, lines = earvae("train", "--config", "none.json", "--workdir", "x", "--compile-for", "h100")
    assert status == 2 and "no such config file" in lines[-1]
