"""Files that people renamed, re-keyed or put together: read as what they are, or refused with the reason."""

import family
import numpy as np
import pytest

from earvae_jax import checkpoints
from earvae_jax.errors import UserError

torch = pytest.importorskip("torch")

import safetensors.torch  # noqa: E402
from weight_files import (  # noqa: E402
    ACE,
    assert_is_the_recorded_model,
    folded,
    parametrized,
    write,
)

from earvae_jax.convert import from_torch, sources, to_torch  # noqa: E402

MAIN = "diffusion_pytorch_model"


@pytest.fixture
def published():
    """The tensors of the recorded model under the published keys."""
    return to_torch.state_dict(family.model(ACE))


@pytest.fixture
def theirs():
    """The tensors of the same model as diffusers wrote them."""
    return safetensors.torch.load_file(family.folder(ACE) / f"{MAIN}.safetensors")


def changed(tensors):
    return {key: tensor + 1 for key, tensor in tensors.items()}


def assert_is_recorded(source):
    assert_is_the_recorded_model(from_torch.read(source))


def refusal(source):
    with pytest.raises(UserError) as caught:
        from_torch.read(source)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "renamed"), [(".safetensors", ".ckpt"), (".ckpt", ".safetensors"), (".pt", ".bin")]
)
def test_what_a_file_is_its_content_tells(tmp_path, theirs, suffix, renamed):
    path = write(tmp_path / f"weights{suffix}", theirs)
    path = path.rename(path.with_suffix(renamed))
    assert_is_recorded(path)
    assert checkpoints.is_of_torch(path)  # so that it may stand for a checkpoint


def test_snakes_may_keep_the_axes_of_diffusers_under_other_keys(tmp_path, published):
    for key, tensor in published.items():
        published[key] = tensor.reshape(1, -1, 1) if key.endswith((".alpha", ".beta")) else tensor
    assert_is_recorded(write(tmp_path / "w.safetensors", published))


@pytest.mark.parametrize("first", ["theirs", "published"])
def test_two_models_under_two_kinds_of_keys_are_refused(tmp_path, theirs, published, first):
    other = changed(published)
    tensors = {**theirs, **other} if first == "theirs" else {**other, **theirs}
    message = refusal(write(tmp_path / "w.ckpt", tensors))
    assert "holds two models: " in message and "differ; keep one" in message
    assert_is_recorded(write(tmp_path / "same.ckpt", {**theirs, **published}))


@pytest.mark.parametrize("form", [parametrized, folded])
def test_weight_norm_in_two_forms_must_be_one_model(tmp_path, published, form):
    assert_is_the_recorded_model(
        from_torch.read(write(tmp_path / "same.ckpt", {**published, **form(published)}))
    )
    other = form({key: tensor * 2 for key, tensor in published.items()})
    beside = {key: tensor for key, tensor in other.items() if key not in published}
    assert "holds two models" in refusal(write(tmp_path / "w.ckpt", {**published, **beside}))


def test_half_a_model_without_its_name_is_refused(tmp_path, theirs, published):
    for tensors in (theirs, published):
        half = {key.removeprefix("decoder."): t for key, t in tensors.items() if key.startswith("decoder.")}
        assert "an encoder or a decoder alone" in refusal(write(tmp_path / "half.safetensors", half))


@pytest.mark.parametrize("average", ["modelEMA", "ema-model", "ema1", "model_Ema"])
def test_names_of_averages_may_be_written_in_other_ways(tmp_path, theirs, average):
    path = write(tmp_path / "w.ckpt", {"model": changed(theirs), average: theirs})
    assert_is_recorded(path)


def test_numbers_in_names_tell_models_apart(tmp_path, theirs):
    path = write(tmp_path / "w.ckpt", {"vae1": changed(theirs), "vae2_ema": theirs})
    assert "more than one model" in refusal(path)


def test_archives_of_other_programs_are_named(tmp_path):
    with (tmp_path / "w.pt").open("wb") as file:
        np.savez(file, array=np.zeros(3))
    assert "a zip archive that torch.save did not write" in refusal(tmp_path / "w.pt")


def test_a_generator_in_coarse_numbers_may_have_layers_of_a_decoder(tmp_path, published):
    beside = {f"vae.{key}": tensor for key, tensor in published.items()}
    coarse = torch.ones(4, 4).to(torch.float8_e4m3fn)
    generator = "model.diffusion_model.decoder.layers.0.self_attn.q_proj.weight"
    assert_is_the_recorded_model(
        from_torch.read(write(tmp_path / "all_in_one.safetensors", {**beside, generator: coarse}))
    )


@pytest.mark.parametrize("place", ["", "vae/"])
def test_of_diffusers_variants_the_plain_file_is_taken(tmp_path, theirs, place):
    write(
        tmp_path / f"{place}{MAIN}.fp16.safetensors", {key: tensor.half() for key, tensor in theirs.items()}
    )
    write(tmp_path / f"{place}{MAIN}.safetensors", theirs)
    assert_is_recorded(tmp_path)


def test_a_generator_in_several_files_does_not_hide_the_autoencoder():
    parts = [f"lm/model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    parts += ["lm/model.safetensors.index.json"]

    def chosen(*names):
        return sources._weights_among([*parts, *names], "hf://a/b", "a repository")

    assert chosen(f"vae/{MAIN}.safetensors", "other.ckpt") == f"vae/{MAIN}.safetensors"
    assert chosen("vae.safetensors") == "vae.safetensors"
    with pytest.raises(UserError, match="split over several files"):
        chosen()
    with pytest.raises(UserError, match=r"several weights files \(one.pt, two.pt\)"):
        chosen("one.pt", "two.pt")
