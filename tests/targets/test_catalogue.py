"""Targets by their names, and what each needs."""

import pytest

from earvae_jax.errors import UserError
from earvae_jax.targets import devices
from earvae_jax.targets.catalogue import ACCELERATORS, Target


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("h100", "h100", 1),
        ("H100x8", "h100", 8),
        (" v5ex4", "v5e", 4),
        ("a100x1", "a100", 1),
        ("v6ex256", "v6e", 256),
    ],
)
def test_names(text, name, count):
    target = Target.parse(text)
    assert (target.accelerator.name, target.devices) == (name, count)
    assert Target.parse(target.name) == target


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "h200",
            "no accelerator 'h200' to compile for; there are h100, a100, v5e, v5p, v6e, each with a count",
        ),
        ("h100x", "no accelerator 'h100x'"),
        ("h100×8", "no accelerator"),
        ("", "no accelerator ''"),
        ("h100x0", "the count is a number from 1 to 256"),
        ("h100x9999999999", "the count is a number from 1 to 256"),
        ("h100x12", "more than 8 come in multiples of 8"),
        ("v5ex6", "TPUs come in powers of two"),
    ],
)
def test_names_that_are_none(text, reason):
    with pytest.raises(UserError) as raised:
        Target.parse(text)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ACCELERATORS)
def test_figures_are_of_one_order(name):
    """A slip of a power of ten in a figure would not be seen otherwise."""
    each = ACCELERATORS[name]
    assert 10e9 < each.memory < 200e9
    assert 0.5e12 < each.bandwidth < 5e12
    assert each.peaks["f32"] < each.peaks["tf32"] <= each.peaks["bf16"] < 1.1e15
    assert 100 < each.peaks["bf16"] / each.bandwidth < 600  # operations for a byte


@pytest.mark.parametrize(
    ("text", "shape", "host"),
    [
        ("v5e", (1, 1), (1, 1, 1)),
        ("v5ex2", (1, 2), (1, 2, 1)),
        ("v5ex8", (2, 4), (2, 4, 1)),
        ("v6ex16", (4, 4), (2, 2, 1)),
        ("v5p", (1, 1, 1), (1, 1, 1)),
        ("v5px4", (1, 2, 2), (1, 2, 1)),
        ("v5px8", (2, 2, 2), (2, 2, 1)),
    ],
)
def test_how_chips_are_arranged(text, shape, host):
    assert devices.chips(Target.parse(text)) == (shape, host)


def test_what_xla_is_told_of_a_gpu():
    text = devices.target_config(ACCELERATORS["a100"])
    for line in (
        "core_count: 108",
        "cuda_compute_capability { major: 8 }",
        "memory_bandwidth: 2039000000000",
    ):
        assert line in text
    assert text.count("{") == text.count("}")


def test_a_compiler_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(devices, "_is_installed", lambda module: False)
    for name, package in {"h100": "jax[cuda12]==", "v5e": "jax[tpu]=="}.items():
        with pytest.raises(UserError, match=r"needs .*'s compiler.*run: pip install") as raised:
            devices.described(Target.parse(name))
        assert package in str(raised.value)


def test_a_compiler_that_does_not_start(monkeypatch):
    def fails(**_):
        raise RuntimeError("libcudart.so.12: cannot open shared object file\nmore")

    monkeypatch.setattr(devices, "_is_installed", lambda module: True)
    monkeypatch.setattr(devices.topologies, "get_topology_desc", fails)
    for name in ("h100", "v5e"):
        with pytest.raises(UserError) as raised:
            devices.described(Target.parse(name))
        assert "installed but does not start" in str(raised.value)
        assert "libcudart.so.12" in str(raised.value)
        assert "\n" not in str(raised.value)


def test_the_environment_keeps_flags_and_asks_for_no_device(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/nowhere")
    gpu = devices.process_variables(Target.parse("h100"))
    assert gpu["XLA_FLAGS"] == "--xla_dump_to=/nowhere --xla_gpu_autotune_level=0"
    assert gpu["JAX_PLATFORMS"] == "cpu"
    assert gpu["CUDA_VISIBLE_DEVICES"] == "-1"
    assert "XLA_FLAGS" not in devices.process_variables(Target.parse("v5e"))
