"""Errors of libraries become one line that names the file, of whatever type they are."""

import os
import sys

import pytest

from earvae_jax import parameters
from earvae_jax.borders import exists, explaining, one_line, parse_json, read_json
from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig


class OddError(Exception):
    """Of a type that nobody lists."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OddError("first\nsecond"), "first"),
        (OddError(), "OddError"),
        (KeyError("shape"), "shape is missing"),
        (RecursionError("too deep"), "too deep"),
        (MemoryError(), "it takes more memory than there is"),
        (OSError(13, "Permission denied", "other name"), "Permission denied"),
    ],
)
def test_any_error_becomes_one_line(error, told):
    with pytest.raises(UserError) as caught, explaining("in/x.bin", "damaged", "; delete it"):
        raise error
    assert str(caught.value) == f"in/x.bin: damaged ({told}); delete it"


def test_errors_for_a_person_and_interruptions_pass():
    with pytest.raises(UserError, match="as it is"), explaining("x", "damaged"):
        raise UserError("as it is")
    with pytest.raises(KeyboardInterrupt), explaining("x", "damaged"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("text", ["[" * 100_000, "2" * 5000, "{", "", "\ufeff{}", '{"a": 1} {}'])
def test_text_that_is_no_json_is_refused(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="not a readable JSON file") as caught:
        read_json(path, "config file")
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value).splitlines()) == 1
    with pytest.raises(UserError, match="x: damaged metadata"):
        parse_json(text, "x", "damaged metadata")


def test_what_would_never_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 30)
    for name, told in (
        ("pipe", "a pipe or a device"),
        ("zeros", "a pipe or a device"),
        ("huge", "too large"),
    ):
        with pytest.raises(UserError, match=told):
            read_json(tmp_path / name, "config file")


def test_names_that_no_file_can_have():
    assert exists(__file__) and exists(os.path.dirname(__file__))  # noqa: PTH120
    assert not exists("a" * 5000) and not exists("a\0b") and not exists("absent")
    with pytest.raises(UserError, match="no such config file"):
        ModelConfig.from_json("a" * 5000)


def test_control_characters_are_written_out():
    assert one_line("a\nb\x1b[31m\r\tü ε\u202e") == "a\\nb\\x1b[31m\\r\\tü ε\\u202e"
    assert one_line("\udcff") == "\\udcff"


def test_weights_larger_than_the_memory_are_refused_before_they_are_made(monkeypatch, golden):
    config = ModelConfig.from_json(golden / "tiny_44k" / "config.json")
    parameters.check_fits_in_memory(config)
    monkeypatch.setattr(parameters.machine, "physical_memory", lambda: 10_000)
    with pytest.raises(UserError, match="GB of weights; this machine has"):
        parameters.check_fits_in_memory(config)
    monkeypatch.setattr(parameters.machine, "physical_memory", lambda: 0)  # the system does not tell
    parameters.check_fits_in_memory(config)


def test_the_memory_of_this_machine_is_known():
    if sys.platform == "linux":
        assert parameters.machine.physical_memory() > 1 << 28
