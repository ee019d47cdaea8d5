"""Every program of the published models compiles for a GPU and a TPU, and none has become fatter.

`ceilings.json` holds for each program what it may have at most: today's figures and a little more. Who makes
a program leaner lowers them; who must raise one says why in the commit.

A TPU's step has a small shape, one crop of 4 latents: libtpu takes a quarter of an hour for that,
and longer for more.
"""

import json
import sys
from pathlib import Path

import places
import pytest

from earvae_jax.errors import UserError
from earvae_jax.targets.catalogue import Target
from earvae_jax.targets.compiling import compile_for
from earvae_jax.targets.devices import check_compiler, process_variables, usable_memory
from earvae_jax.targets.report import Report

pytestmark = pytest.mark.accelerator

CEILINGS = json.loads((Path(__file__).parent / "ceilings.json").read_text(encoding="utf-8"))
TIMEOUT = 3600.0  # seconds, of one program on a loaded machine
WINDOW = 1024
BATCHES = {"h100": 4, "v5e": 1}
CROPS = {
    "h100": {"train_44k": 65_536, "train_48k": 65_280},  # the recipes' own
    "v5e": {"train_44k": 4096, "train_48k": 3840},
}
# What JAX hands out on cards of 8 and 24 GB: one encodes and decodes, the other trains with four crops.
OF_8_GB, OF_24_GB = 0.75 * (8 << 30), 0.75 * (24 << 30)
# The process that compiles, with the helpers on its path.
WORKER = (
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {str(Path(places.__file__).parent)!r})\n"
    "from earvae_jax.targets import worker; worker.main()",
)


def figures(target: Target, plan: str, *, most_memory: float, **arguments) -> dict[str, dict]:
    """What every program of a plan shows, by its name; all of it takes at most so many bytes of a device."""
    try:
        check_compiler(target.accelerator)
    except UserError as error:
        pytest.skip(str(error))
    outcome = compile_for(
        target,
        f"accelerator_programs:{plan}",
        arguments,
        environment=process_variables(target),
        find_largest=False,
        timeout=TIMEOUT,
        worker=WORKER,
    )
    assert not outcome.failed, outcome.failed
    memory = Report(target, outcome, usable_memory(target.accelerator)).to_dict()["memory"]
    assert memory["total"] <= most_memory and memory["fits"], memory
    found = {}
    for name, compiled in outcome.compiled.items():
        reading = compiled["reading"]
        temporaries = reading["memory"]["temporaries"]
        found[name] = {
            "kernels": reading["kernels"],
            "GB": reading["bytes"] / 1e9,
            "temporaries GB": temporaries / 1e9,
            "loops of unknown length": reading["unknown_loops"],  # whose kernels and bytes count once
        }
    return found


def check(key: str, found: dict[str, dict]) -> None:
    """No figure is above its ceiling; all that are come in one message, and those that have none yet."""
    wrong = []
    for name, program in found.items():
        ceilings = CEILINGS[key].get(name, {})
        for figure, value in program.items():
            if value > ceilings.get(figure, 0):
                wrong.append(f"{key}, {name}: {figure} {value:g}, ceiling {ceilings.get(figure)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("config", ["ear_vae_44k", "ear_vae_v2_48k"])
@pytest.mark.parametrize("name", ["h100", "v5e"])
def test_inference(name, config, dtype):
    if name == "v5e" and dtype == "float32":
        pytest.skip("it is what a TPU is not bought for, and takes as long again to compile")
    shape = {"config": config, "dtype": dtype, "window": WINDOW}
    found = figures(Target.parse(name), "inference", most_memory=OF_8_GB, **shape)
    assert len(found) == (3 if config == "ear_vae_44k" else 2)  # the other one has no transformer
    check(f"{name} {config} {dtype}", found)


@pytest.mark.parametrize("config", ["train_44k", "train_48k"])
@pytest.mark.parametrize("name", ["h100", "v5e"])
def test_training(name, config):
    shape = {"batch": BATCHES[name], "crop": CROPS[name][config]}
    found = figures(Target.parse(name), "training", most_memory=OF_24_GB, config=f"{config}.json", **shape)
    assert len(found) == 1
    check(f"{name} {config}", found)


def test_every_ceiling_is_of_a_program():
    keys = {f"{name} {config}" for name in CROPS for config in ("train_44k", "train_48k")}
    for config in ("ear_vae_44k", "ear_vae_v2_48k"):
        keys |= {f"h100 {config} bfloat16", f"h100 {config} float32", f"v5e {config} bfloat16"}
    assert set(CEILINGS) == keys
