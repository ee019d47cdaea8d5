"""Latent files: what stands in them, and what is wrong with those that are broken or another model's."""

import json
import shutil

import numpy as np
import pytest
from places import CASES

from earvae_jax import checkpoints
from earvae_jax.audio.reader import read
from earvae_jax.audio.writer import write
from earvae_jax.errors import UserError
from earvae_jax.infer.latents import Latents, read_latents, write_latents

pytestmark = pytest.mark.usefixtures("quick_compilation")

RATE = 8000


def noise(samples, channels=2):
    return 0.1 * np.random.default_rng(0).standard_normal((samples, channels), np.float32)


def test_latent_files_say_what_they_are(earvae, small_checkpoint, tmp_path):
    write(tmp_path / "b.flac", noise(5001, 1), 11_025, format="flac")
    model = ("--checkpoint", small_checkpoint)
    call = ("encode", tmp_path / "b.flac", *model, "--latent-dtype", "float16")
    assert earvae(*call, "--output-dir", tmp_path)[0] == 0
    with np.load(tmp_path / "b.npz") as file:
        metadata = json.loads(str(file["metadata"]))
        mean, std = file["mean"], file["std"]
    assert mean.dtype == std.dtype == np.float16 and mean.shape == std.shape
    assert (metadata["sample_rate"], metadata["samples"], metadata["channels"]) == (11_025, 5001, 1)
    assert metadata["model"] == checkpoints.read_info(small_checkpoint).fingerprint
    assert len(mean) == -(-round(5001 * RATE / 11_025) // metadata["downsampling_ratio"])
    assert metadata["model_name"] == small_checkpoint.name
    status, _ = earvae("decode", tmp_path / "b.npz", *model, "--output-dir", tmp_path)
    assert status == 0 and len(read(tmp_path / "b.wav")[0]) == 5001


def test_latents_without_std_come_back_without(tmp_path):
    path = tmp_path / "a.npz"
    write_latents(path, Latents(noise(7, 3), None, RATE, 40, 2, "0" * 64, "a"))
    found = read_latents(path)
    assert found.std is None and found.name == "a"
    np.testing.assert_array_equal(found.mean, noise(7, 3))


IMPOSSIBLE = [
    {"sample_rate": 0},
    {"samples": "40"},
    {"samples": -5},
    {"samples": 10**12},
    {"channels": 1.5},
    {"model": 3},
    {"model_name": ["a"]},
]


@pytest.mark.parametrize("change", IMPOSSIBLE)
def test_latents_with_impossible_metadata_fail_alone(earvae, small_checkpoint, tmp_path, change):
    write(tmp_path / "a.wav", noise(300), RATE)
    latents = tmp_path / "latents"
    model = ("--checkpoint", small_checkpoint)
    assert earvae("encode", tmp_path / "a.wav", *model, "--output-dir", latents)[0] == 0
    with np.load(latents / "a.npz") as file:
        arrays = dict(file)
    described = json.loads(str(arrays.pop("metadata"))) | change
    np.savez(latents / "b.npz", **arrays, metadata=np.asarray(json.dumps(described)))
    status, lines = earvae("decode", latents, *model, "--output-dir", tmp_path / "out")
    assert status == 1 and [path.name for path in (tmp_path / "out").iterdir()] == ["a.wav"]
    assert any("b.npz" in line for line in lines)


def test_what_is_wrong_with_latents_is_named(earvae, small_checkpoint, checkpoint, tmp_path):
    write(tmp_path / "a.wav", noise(3000), RATE)
    model = ("--checkpoint", small_checkpoint)
    assert earvae("encode", tmp_path / "a.wav", *model, "--output-dir", tmp_path)[0] == 0
    latents, whole = tmp_path / "latents", (tmp_path / "a.npz").read_bytes()
    latents.mkdir()
    shutil.copy(tmp_path / "a.npz", latents / "good.npz")
    (latents / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (latents / "text.npz").write_text("no latents")
    (latents / "empty.npz").write_bytes(b"")
    np.savez(latents / "foreign.npz", x=np.zeros(3))
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    np.savez(latents / "nan.npz", **{**arrays, "mean": arrays["mean"] * np.nan})
    np.savez(latents / "shape.npz", **{**arrays, "std": arrays["std"][1:]})
    np.savez(latents / "listed.npz", **{**arrays, "metadata": np.asarray("[1]")})
    np.savez(latents / "pickled.npz", **{**arrays, "mean": np.asarray([{}], object)})
    call = ("decode", latents, "--output-dir", tmp_path / "out", "--checkpoint")
    status, lines = earvae(*call, small_checkpoint)
    assert status == 1 and [path.name for path in (tmp_path / "out").iterdir()] == ["good.wav"]
    failed = ("cut", "text", "empty", "foreign", "nan", "shape", "listed", "pickled")
    for name in failed:
        assert sum(f"{name}.npz: " in line for line in lines) == 1, (name, lines)
    assert any("text.npz: not a readable latent file (it is no .npz)" in line for line in lines)
    assert len(lines) == len(failed) + 2
    status, lines = earvae(*call, checkpoint, "--overwrite")
    refusal = f"good.npz: encoded by another model: {small_checkpoint.name} ("
    assert status == 1 and any(refusal in line and checkpoint.name in line for line in lines), lines


def test_latents_too_large_for_float32_are_refused(tmp_path):
    with np.load(CASES / "concat.npz") as file:
        content = {name: file[name] for name in file}
    np.savez(tmp_path / "a.npz", **content | {"mean": content["mean"].astype(np.float64) * 1e300})
    with pytest.raises(UserError, match=r"a\.npz: holds NaN or infinite latents"):
        read_latents(tmp_path / "a.npz")


@pytest.mark.parametrize("order", ["<", ">"])
def test_metadata_that_are_no_text_are_refused(tmp_path, order):
    with np.load(CASES / "concat.npz") as file:
        content = {name: file[name] for name in file}
    letters = np.frombuffer(content["metadata"].tobytes(), np.uint32).copy()
    letters[40] = 0x08000066  # beyond Unicode, which Python cannot even print
    broken = letters.astype(f"{order}u4").view(f"{order}U{len(letters)}").reshape(())
    np.savez(tmp_path / "a.npz", **content | {"metadata": broken})
    with pytest.raises(UserError, match=r"a\.npz: damaged: its metadata is not text"):
        read_latents(tmp_path / "a.npz")
