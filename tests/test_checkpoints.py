"""Checkpoints: bit-exact both ways, strict, and refused by name where they are broken."""

import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import small_models
from places import HELPERS

import earvae_jax
from earvae_jax import checkpoints
from earvae_jax.errors import UserError
from earvae_jax.parameters import build, fingerprint, named_arrays, non_finite

KINDS = ("model", "model.safetensors")


@pytest.fixture(scope="module")
def model():
    return small_models.model(small_models.KINDS["transformer"])


@pytest.fixture(params=KINDS)
def saved(request, model, tmp_path):
    path = tmp_path / request.param
    checkpoints.save(path, model, provenance={"source": "weights.pyt"})
    return path


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        checkpoints.load(path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))
    return str(caught.value)


def largest_file(path: Path) -> Path:
    files = [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]
    return max(files, key=lambda found: found.stat().st_size)


def test_round_trip_is_bit_exact(model, saved):
    loaded, info = checkpoints.load_with_info(saved)
    arrays = named_arrays(model)
    assert named_arrays(loaded).keys() == arrays.keys()
    for name, array in named_arrays(loaded).items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)
    assert loaded.config == info.config == model.config
    assert info.fingerprint == fingerprint(arrays) and info.provenance == {"source": "weights.pyt"}


def test_nothing_is_replaced_unless_asked(model, saved):
    with pytest.raises(UserError, match="exists already"):
        checkpoints.save(saved, model)
    other = small_models.model(model.config, seed=1)
    checkpoints.save(saved, other, overwrite=True)
    assert checkpoints.read_info(saved).fingerprint == fingerprint(named_arrays(other))
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_unwritable_folders_are_named(model, saved):
    blocked = largest_file(saved) / "model"
    with pytest.raises(UserError, match="cannot be written"):
        checkpoints.save(blocked, model)


def test_missing_extra_and_misshapen_arrays_stand_in_one_message(model):
    arrays = dict(named_arrays(model))
    arrays.pop("encoder.layers.0.gain")
    arrays["decoder.extra"] = np.zeros(3, np.float32)
    arrays["encoder.layers.0.bias"] = np.zeros(7, np.float32)
    arrays["decoder.layers.0.bias"] = np.asarray(arrays["decoder.layers.0.bias"], np.float16)
    with pytest.raises(UserError) as caught:
        build(model.config, arrays)
    for part in (
        "missing encoder.layers.0.gain float32[4]",
        "unexpected decoder.extra float32[3]",
        "encoder.layers.0.bias is float32[7], not float32[4]",
        "decoder.layers.0.bias is float16[4], not float32[4]",
    ):
        assert part in str(caught.value)


def test_a_file_whose_arrays_do_not_fit_is_refused(model, tmp_path):
    path = tmp_path / "model.safetensors"
    info = checkpoints.save(path, model)
    arrays = {name: np.asarray(array) for name, array in named_arrays(model).items()}
    arrays["encoder.layers.0.bias"] = np.zeros(7, np.float32)
    arrays.pop("encoder.layers.0.gain")
    safetensors.numpy.save_file(arrays, path, {"earvae_jax": json.dumps(info.to_dict())})
    message = refusal(path)
    assert "missing encoder.layers.0.gain" in message and "encoder.layers.0.bias is float32[7]" in message


def test_a_directory_whose_arrays_do_not_fit_is_refused(model, tmp_path):
    from orbax.checkpoint import v1 as ocp

    info = checkpoints.save(tmp_path / "whole", model)
    arrays = dict(named_arrays(model))
    arrays["encoder.layers.0.bias"] = np.zeros(7, np.float32)
    arrays.pop("encoder.layers.0.gain")
    ocp.save(tmp_path / "other", arrays, custom_metadata={"earvae_jax": info.to_dict()})
    message = refusal(tmp_path / "other")
    assert "missing encoder.layers.0.gain" in message and "encoder.layers.0.bias is float32[7]" in message


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage"])
def test_damaged_files_are_refused(saved, damage):
    victim = largest_file(saved)
    whole = victim.read_bytes()
    garbage = np.random.default_rng(0).bytes(len(whole))
    victim.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "garbage": garbage}[damage])
    refusal(saved)


def test_any_missing_part_of_a_directory_is_refused_or_not_needed(model, tmp_path):
    checkpoints.save(tmp_path / "whole", model)
    expected = fingerprint(named_arrays(model))
    for part in sorted(path.name for path in (tmp_path / "whole").iterdir()):
        copy = tmp_path / f"without {part}"
        shutil.copytree(tmp_path / "whole", copy)
        shutil.rmtree(copy / part) if (copy / part).is_dir() else (copy / part).unlink()
        try:
            loaded = checkpoints.load(copy)
        except UserError as error:
            assert str(error).startswith(str(copy))
        else:
            assert fingerprint(named_arrays(loaded)) == expected


def test_foreign_files_are_refused_with_the_way_on(tmp_path, golden):
    from orbax.checkpoint import v1 as ocp

    assert "convert from-torch" in refusal(golden / "tiny_48k" / "weights.pyt")
    foreign = tmp_path / "foreign.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(3)}, foreign)
    assert "not a checkpoint of this project" in refusal(foreign)
    (tmp_path / "empty").mkdir()
    refusal(tmp_path / "empty")
    ocp.save(tmp_path / "orbax", {"x": np.zeros(3)})
    assert "not one of an εar-VAE model" in refusal(tmp_path / "orbax")
    assert "no such checkpoint" in refusal(tmp_path / "absent")


def test_arguments_in_another_order_or_of_another_kind_are_told(tmp_path):
    model = small_models.model(small_models.config())
    path = tmp_path / "model.safetensors"
    for function, arguments, message in (
        (checkpoints.save, (model, path), "the path comes first: save(path, model)"),
        (checkpoints.save, (model, str(path)), "the path comes first: save(path, model)"),
        (checkpoints.save, (path, model.config), "the model is a ModelConfig, not an EarVAE"),
        (checkpoints.save, (3, model), "int is not the path of a checkpoint"),
        (checkpoints.load, (model,), "EarVAE is not the path of a checkpoint"),
    ):
        with pytest.raises(UserError) as caught:
            function(*arguments)
        assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "checkpoint format 99; this version reads format 1"),
        ({"config": {}}, "encoder is missing"),
        ({"fingerprint": None}, "fingerprint"),
    ],
)
def test_metadata_of_another_version_is_refused(model, tmp_path, change, message):
    path = tmp_path / "model.safetensors"
    values = checkpoints.save(path, model).to_dict() | change
    if values["fingerprint"] is None:
        del values["fingerprint"]
    arrays = {name: np.asarray(array) for name, array in named_arrays(model).items()}
    safetensors.numpy.save_file(arrays, path, {"earvae_jax": json.dumps(values)})
    assert message in refusal(path)
    safetensors.numpy.save_file(arrays, path, {"earvae_jax": "{broken"})
    refusal(path)


def test_half_precision_files_become_float32(model, tmp_path):
    path = tmp_path / "model.safetensors"
    info = checkpoints.save(path, model)
    arrays = {name: np.asarray(array, np.float16) for name, array in named_arrays(model).items()}
    safetensors.numpy.save_file(arrays, path, {"earvae_jax": json.dumps(info.to_dict())})
    for name, array in named_arrays(earvae_jax.load(path)).items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, arrays[name].astype(np.float32))


@pytest.mark.parametrize("name", KINDS)
def test_kill_during_a_save_leaves_no_final_name(tmp_path, name):
    """Killed just before the rename, when everything else has been written."""
    script = (
        "import os, signal, sys, small_models\n"
        "from earvae_jax import checkpoints\n"
        "from earvae_jax.system import atomic\n"
        "atomic._rename = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoints.save(sys.argv[1], small_models.model(small_models.config()))\n"
    )
    path = tmp_path / name
    killed = subprocess.run([sys.executable, "-c", script, path], cwd=HELPERS, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists() and "no such checkpoint" in refusal(path)
    checkpoints.save(path, small_models.model(small_models.config()))
    assert [found.name for found in tmp_path.iterdir()] == [name], "the killed save's leftovers stay"


FULL = """
import resource, signal, sys, small_models
from earvae_jax import checkpoints
from earvae_jax.errors import UserError
model = small_models.model(small_models.config())
signal.signal(signal.SIGXFSZ, getattr(signal, sys.argv[2]))
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
try:
    checkpoints.save(sys.argv[1], model)
except UserError as error:
    assert "cannot be written: " in str(error) and "\\n" not in str(error), error
    sys.exit(3)
"""


@pytest.mark.parametrize("name", KINDS)
def test_a_full_disk_is_one_line(tmp_path, name):
    """The system refuses to let files grow, as a full disk does."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / name, "SIG_IGN"],
        cwd=HELPERS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert not (tmp_path / name).exists()
    assert name == "model" or not list(tmp_path.iterdir())  # a thread of Orbax may come too late


def test_what_a_kill_in_the_middle_of_a_file_leaves_is_removed_by_the_next_save(model, tmp_path):
    """The system kills what writes beyond a limit."""
    path = tmp_path / "model.safetensors"
    killed = subprocess.run([sys.executable, "-c", FULL, path, "SIG_DFL"], cwd=HELPERS, check=False)
    assert killed.returncode == -signal.SIGXFSZ and list(tmp_path.iterdir()) and not path.exists()
    checkpoints.save(path, model)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_broken_values_are_counted(model):
    arrays = {name: np.array(array) for name, array in named_arrays(model).items()}
    arrays["encoder.layers.0.bias"][:2] = np.nan, np.inf
    assert non_finite(arrays) == {"encoder.layers.0.bias": 2}


def test_others_may_read_what_is_saved(tmp_path, small_checkpoint):
    """As far as the user's umask says so, like any other file."""
    path, other = tmp_path / "model.safetensors", tmp_path / "other"
    checkpoints.save(path, checkpoints.load(small_checkpoint))
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


def _no_manifest(folder):
    (folder / "state" / "manifest.ocdbt").unlink()


def _no_values(folder):
    shutil.rmtree(folder / "state" / "d")


def _damaged_values(folder):
    largest_file(folder / "state" / "d").write_bytes(b"x")


def _no_metadata(folder):
    (folder / "_CHECKPOINT_METADATA").write_text('{"custom_metadata": 3}')


def _pipe(folder):
    (folder / "state" / "manifest.ocdbt").unlink()
    os.mkfifo(folder / "state" / "manifest.ocdbt")


def _endless(folder):
    data = largest_file(folder / "state" / "d")
    data.unlink()
    data.symlink_to("/dev/zero")


@pytest.mark.parametrize("damage", [_no_manifest, _no_values, _damaged_values, _no_metadata, _pipe, _endless])
def test_damaged_directories_are_one_line_and_silent(model, tmp_path, damage, capfd):
    """Orbax would wait for ever, read without end, or print a traceback for every array that it gave up."""
    checkpoints.save(tmp_path / "model", model)
    damage(tmp_path / "model")
    refusal(tmp_path / "model")
    gc.collect()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format_version": ' + "1" * 5000 + "}", "[]", "3", '"x"', "null"]
)
def test_odd_metadata_is_refused(model, tmp_path, text):
    path = tmp_path / "model.safetensors"
    arrays = {name: np.asarray(array) for name, array in named_arrays(model).items()}
    safetensors.numpy.save_file(arrays, path, {"earvae_jax": text})
    assert re.search("damaged checkpoint metadata|not one of an εar-VAE model", refusal(path))


@pytest.mark.parametrize("change", [{"provenance": 3}, {"fingerprint": ["x"]}, {"config": [1]}])
def test_metadata_of_other_types_is_refused(model, tmp_path, change):
    path = tmp_path / "model.safetensors"
    values = checkpoints.save(path, model).to_dict() | change
    arrays = {name: np.asarray(array) for name, array in named_arrays(model).items()}
    safetensors.numpy.save_file(arrays, path, {"earvae_jax": json.dumps(values)})
    refusal(path)


def test_names_that_no_file_can_have(model):
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoints.load("a" * 5000)
    with pytest.raises(UserError, match="cannot be written: File name too long"):
        checkpoints.save("a" * 5000, model)


def test_a_name_with_a_line_break_stands_in_one_line(model):
    with pytest.raises(UserError, match=r"unexpected a\\nb float32") as caught:
        build(model.config, {**named_arrays(model), "a\nb": np.zeros(3, np.float32)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [".", "..", "music"])
def test_a_folder_of_other_things_is_never_replaced(model, tmp_path, monkeypatch, name):
    (tmp_path / "here" / "music").mkdir(parents=True)
    (tmp_path / "here" / "music" / "song.wav").touch()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="this folder holds other things"):
        checkpoints.save(name, model, overwrite=True)
    assert Path("music", "song.wav").exists() and [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_folder_with_nothing_in_it_is_replaced_if_asked(model, tmp_path):
    checkpoints.save(tmp_path, model, overwrite=True)
    checkpoints.load(tmp_path)


def test_a_pipe_is_no_checkpoint(tmp_path):
    """Nobody may write into it for ever."""
    for name in ("pipe", "pipe.safetensors"):
        os.mkfifo(tmp_path / name)
        assert "not a checkpoint of this project" in refusal(tmp_path / name)


def test_a_folder_is_found_by_any_of_its_paths(tmp_path, monkeypatch):
    model = small_models.model(small_models.KINDS["even strides"])
    checkpoints.save(tmp_path / "there" / "model", model)
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "here")
    for path in ("../there/model", "../link/../there/model", "../link/model", "./../there/./model/"):
        assert checkpoints.load(path).config == model.config
