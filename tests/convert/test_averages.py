"""Raw and averaged weights side by side in one file, as those who train write them."""

import family
import numpy as np
import pytest

from earvae_jax.errors import UserError
from earvae_jax.parameters import named_arrays

torch = pytest.importorskip("torch")

import safetensors.torch  # noqa: E402

from earvae_jax.convert import from_torch, to_torch  # noqa: E402
from earvae_jax.convert.config_from_tensors import Stated  # noqa: E402
from earvae_jax.convert.keys import twin_of  # noqa: E402

ACE = "diffusers_acestep_tiny"
LAYOUTS = ("stable-audio-tools", "diffusers")


@pytest.fixture(params=LAYOUTS)
def tensors(request):
    """Those of the recorded model, under each project's keys."""
    if request.param == "diffusers":
        return safetensors.torch.load_file(family.folder(ACE) / "diffusion_pytorch_model.safetensors")
    return dict(to_torch.state_dict(family.model(ACE)))


@pytest.fixture
def tied(golden):
    """An εar-VAE with a transformer: shared activations, and a constant; and what is said about it."""
    folder = golden / "tiny_44k"
    state = torch.load(folder / "weights.pyt", weights_only=True)
    return state, {"config": folder / "config.json", "stated": Stated(44_100)}


@pytest.fixture
def read(tmp_path, caplog):
    """Reads a content that `torch.save` wrote; returns the weights and what was said."""

    def read(content, **options):
        torch.save(content, tmp_path / "w.ckpt")
        with caplog.at_level("INFO", logger="absl"):
            return from_torch.read(tmp_path / "w.ckpt", **options), caplog.text

    return read


def raw(tensors):
    """Weights of the same model at another step."""
    return {key: tensor if key.endswith("inv_freq") else tensor + 1 for key, tensor in tensors.items()}


def under(prefix, tensors):
    return {prefix + key: tensor for key, tensor in tensors.items()}


def without_dots(tensors):
    return {key.replace(".", ""): tensor for key, tensor in tensors.items()}


def assert_same(weights, expected):
    assert weights.arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(weights.arrays[name], array, err_msg=name)


COUNTED = {"decay": torch.tensor(0.9), "num_updates": torch.tensor(3)}
WRITERS = {
    "Lightning's WeightAveraging": (
        lambda new, old: {
            "state_dict": under("autoencoder.", new),
            "current_model_state": under("autoencoder.", old),
            "averaging_state": {"n_averaged": torch.tensor(3)},
        },
        "state_dict.autoencoder.", "current_model_state.autoencoder.",
    ),
    "timm": (
        lambda new, old: {
            "state_dict": under("autoencoder.", old), "state_dict_ema": under("autoencoder.", new),
        },
        "state_dict_ema.autoencoder.", "state_dict.autoencoder.",
    ),
    "a callback": (
        lambda new, old: {
            "state_dict": under("autoencoder.", old),
            "callbacks": {"EMA{'decay': 0.99}": {"ema_weights": under("autoencoder.", new)}},
        },
        "callbacks.EMA{'decay': 0.99}.ema_weights.autoencoder.", "state_dict.autoencoder.",
    ),
    "ema_pytorch": (
        lambda new, old: {
            "model": old,
            "ema": {**under("ema_model.", new), **under("online_model.", old), "step": torch.tensor(3)},
        },
        "ema.ema_model.", "model.",
    ),
    "AveragedModel": (
        lambda new, old: {
            "model": under("_orig_mod.", old),
            "averaged_model": {**under("module._orig_mod.", new), "n_averaged": torch.tensor(3)},
        },
        "averaged_model.", "model.",
    ),
    "LitEma beside the model": (
        lambda new, old: {
            **under("autoencoder.", old), **under("model_ema.", without_dots(new) | COUNTED),
        },
        "model_ema.", "autoencoder.",
    ),
    "LitEma in the model": (
        lambda new, old: {
            "state_dict": {**old, **under("model_ema.", without_dots(new) | COUNTED)}
        },
        "state_dict.model_ema.", "state_dict.",
    ),
    "LitEma around wrappers": (
        lambda new, old: {
            **under("net.module.", old),
            **under("model_ema.", without_dots(under("module.", new)) | COUNTED),
        },
        "model_ema.", "net.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS)
def test_the_average_is_taken_and_both_are_named(writer, tensors, read):
    content, taken, left = WRITERS[writer]
    weights, said = read(content(tensors, raw(tensors)))
    assert_same(weights, named_arrays(family.model(ACE)))
    assert weights.file.prefix == taken
    assert f"taking the averaged weights under {taken!r}, not those under" in said
    assert repr(left) in said.partition("not those under")[2]


@pytest.mark.parametrize("dots", [True, False])
@pytest.mark.parametrize("place", ["model.", ""])
def test_an_average_of_parameters_alone_is_completed(tied, read, place, dots):
    """Shared activations have one name among parameters, and constants none."""
    state, options = tied
    shared = [twin for key in state if (twin := twin_of(key)) in state]
    parameters = {key: tensor for key, tensor in state.items() if key not in shared and "inv_freq" not in key}
    assert len(shared) == 60 and len(parameters) == len(state) - 61
    average = parameters if dots else without_dots(parameters) | COUNTED
    weights, said = read({**under(place, raw(state)), **under("model_ema.", average)}, **options)
    expected, _ = read(state, **options)
    assert_same(weights, expected.arrays)
    assert f"not those under {place!r}" in said or (not place and "not those under no prefix" in said)


@pytest.mark.parametrize(
    ("content", "taken", "left"),
    [
        (
            lambda new, old: {
                "state_dict": old, "current_model_state": new,
                "averaging_state": {"n_averaged": torch.tensor(0)},
            },
            "current_model_state.", "state_dict.",
        ),
        (
            lambda new, old: {
                "model": new, "averaged_model": {**under("module.", old), "n_averaged": torch.tensor(0)},
            },
            "model.", "averaged_model.",
        ),
    ],
)  # fmt: skip
def test_an_average_of_no_step_is_not_taken(tensors, read, content, taken, left):
    """It is what training began with."""
    weights, said = read(content(tensors, raw(tensors)))
    assert_same(weights, named_arrays(family.model(ACE)))
    assert f"not taking the average under {left!r}: it is of no step yet" in said
    assert weights.file.prefix == taken
    alone, _ = read({"averaged_model": {**under("module.", tensors), "n_averaged": torch.tensor(0)}})
    assert_same(alone, named_arrays(family.model(ACE)))


def test_half_an_average_is_named_and_not_taken(tensors, read):
    half = {key: tensor for key, tensor in raw(tensors).items() if key.startswith("decoder.")}
    weights, said = read({"model": tensors, "ema": half})
    assert_same(weights, named_arrays(family.model(ACE)))
    assert "taking the weights under 'model.', not those under 'ema.'" in said


@pytest.mark.parametrize(
    "names",
    [("vae", "vae2"), ("music", "speech"), ("teacher", "student"), ("ema_0.99", "ema_0.999"), ("a", "b_ema")],
)
def test_two_models_are_never_taken_for_a_model_and_its_average(tensors, read, names):
    first, second = names
    with pytest.raises(UserError, match="holds more than one model") as caught:
        read({first: tensors, second: raw(tensors)})
    assert repr(f"{first}.") in str(caught.value) and repr(f"{second}.") in str(caught.value)


def test_halves_in_different_places_are_named(tensors, read):
    halves = {
        half: {key: tensor for key, tensor in tensors.items() if key.startswith(half)}
        for half in ("encoder", "decoder")
    }
    with pytest.raises(UserError, match=r"holds an encoder under 'a.' and a decoder under 'b.'"):
        read({"a": halves["encoder"], "b": halves["decoder"]})


def test_checkpointed_activations_are_a_wrapper(tensors, read):
    content = {
        key.replace("coder.", "coder._checkpoint_wrapped_module."): tensor for key, tensor in tensors.items()
    }
    assert_same(read(content)[0], named_arrays(family.model(ACE)))
