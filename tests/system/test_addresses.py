"""Addresses keep both slashes in what is said of them, and nobody takes them for paths."""

import string
from pathlib import Path

import pytest
import small_models
from hypothesis import given
from hypothesis import strategies as st

from earvae_jax import checkpoints
from earvae_jax.errors import UserError
from earvae_jax.infer import Codec
from earvae_jax.system.addresses import address

HUB, WEB = "hf://owner/repo/model.pyt", "https://example.org/songs/song.mp3"
names = st.text(string.ascii_letters + string.digits, min_size=1)


@given(st.sampled_from(["hf", "https", "http", "s3", "gs"]), st.lists(names, min_size=1))
def test_a_path_of_an_address_is_the_address_again(scheme, parts):
    whole = f"{scheme}://{'/'.join(parts)}"
    assert address(whole) == address(Path(whole)) == whole


@pytest.mark.parametrize("path", ["song.mp3", "a/b:/c", "/a/b", "C:/music/a.wav", "", "a:b", Path("hf:")])
def test_paths_are_none(path):
    assert address(path) is None


@pytest.fixture(autouse=True)
def without_the_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("form", [str, Path])
def test_the_library_says_addresses_whole(form):
    model = small_models.model(small_models.config())
    for function, arguments, message in (
        (checkpoints.load, (form(HUB),), f"{HUB}: the Hugging Face Hub cannot be reached"),
        (Codec.load, (form(WEB),), f"{WEB}: this is no local path: download it"),
        (checkpoints.save, (form(HUB), model), f"{HUB}: this is no local path"),
        (Codec(model).encode, (form(WEB),), f"{WEB}: only local files are read as audio"),
        (Codec(model).decode, ([form(WEB)],), rf"latents\[0\]: {WEB}: only local files are read as latents"),
    ):
        with pytest.raises(UserError, match=f"^{message}"):
            function(*arguments)


@pytest.mark.parametrize(
    "words",
    [
        ("info", HUB),
        ("info", WEB),
        ("reconstruct", "--checkpoint", HUB),
        ("reconstruct", "--checkpoint", WEB),
        ("reconstruct", WEB),
        ("encode", HUB, "--output-dir", "latents"),
        ("decode", WEB, "--output-dir", "decoded"),
        ("convert", "from-torch", WEB, "out"),
        ("convert", "to-torch", HUB, "out.pyt"),
        ("benchmark", "--checkpoint", HUB),
        ("train", "--config", "train_demo.json", "--workdir", "run", "--init", HUB),
    ],
)
def test_the_commands_say_them_whole(earvae, tmp_path, monkeypatch, words):
    if "to-torch" in words:
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    code, lines = earvae(*words)
    assert code == 2
    whole = next(word for word in words if "://" in word)
    assert lines[-1].startswith(f"error: {whole}: ")
    assert ":/o" not in lines[-1] and ":/e" not in lines[-1]
    assert not any(path.name.startswith(("hf", "https")) for path in tmp_path.iterdir())
