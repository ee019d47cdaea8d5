"""Other projects' Oobleck models are tuned: from their files, by the family's recipes, and back to files."""

import importlib.util
import json
import shutil

import family
import light_training
import numpy as np
import pytest
import small_models
from tolerances import FAMILY_OUTPUT

from earvae_jax import checkpoints
from earvae_jax.audio.writer import write
from earvae_jax.model.config import ModelConfig
from earvae_jax.parameters import named_arrays

pytest.importorskip("torch")

from earvae_jax.convert import from_torch

pytestmark = pytest.mark.usefixtures("quick_compilation")

ACE = "diffusers_acestep_tiny"
SMALL = (
    "steps=2",
    "validate_every=2",
    "checkpoint_every=2",
    "ema_decay=0",  # or the exported average stays the beginning
    "compute_dtype=float32",
    "optimizer.warmup=0",
    "optimizer.learning_rate=1e-3",
    "objective.n_ffts=[64]",
    "objective.phase_n_ffts=[64]",
    "adversarial.discriminator.n_ffts=[64]",
    "adversarial.discriminator.filters=2",
    "data.crop_samples=7680",
    "data.batch_size=2",
    "data.validation_items=1",
    "data.threads=1",
)


@pytest.fixture
def start(earvae, tmp_path, monkeypatch):
    """`earvae train` by a recipe of the family, of the tiny model of the recording."""
    monkeypatch.setenv("EARVAE_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "tiny.json").write_text(json.dumps(family.model(ACE).config.to_dict()))
    noise = np.random.default_rng(0).standard_normal((48_000, 2))
    for name in ("one", "two"):
        write(tmp_path / "music" / f"{name}.wav", (0.1 * noise).astype(np.float32), 48_000)

    def run(recipe, source, *changes):
        changes = [f"model={tmp_path / 'tiny.json'}", f"data.train={tmp_path / 'music'}", *SMALL, *changes]
        flags = ["--init", source, *(f"--set={change}" for change in changes)]
        return earvae("train", "--config", recipe, "--workdir", tmp_path / "run", *flags)

    return run


@pytest.mark.slow
def test_a_folder_of_diffusers_is_tuned_and_goes_back(start, earvae, tmp_path):
    """Two steps against the discriminator, too, change every weight; the shapes and options stay."""
    source = tmp_path / "vae"
    shutil.copytree(family.folder(ACE), source)
    status, lines = start("train_ace_step.json", source, "adversarial.alone_steps=0")
    assert status == 0, "\n".join(lines)
    tuned, info = checkpoints.load_with_info(tmp_path / "run")
    before = family.model(ACE)
    assert tuned.config == before.config
    assert info.provenance["origin"]["checkpoint"] == str(source)
    for name, array in named_arrays(before).items():
        change = np.abs(named_arrays(tuned)[name] - array).max()
        assert 0 < change < 0.1, name
    status, lines = earvae("convert", "to-torch", tmp_path / "run", tmp_path / "out", "--layout", "diffusers")
    assert status == 0, "\n".join(lines)
    back = from_torch.read(tmp_path / "out")
    assert back.config == before.config
    for name, array in named_arrays(tuned).items():
        np.testing.assert_array_equal(back.arrays[name], array, err_msg=name)
    if importlib.util.find_spec("diffusers"):
        assert_diffusers_decodes_it(tmp_path / "out", tuned)


def assert_diffusers_decodes_it(folder, model):
    import diffusers
    import torch

    theirs = diffusers.AutoencoderOobleck.from_pretrained(folder, low_cpu_mem_usage=False).eval()
    latents = np.random.default_rng(0).standard_normal((1, 4, model.config.latent_dim)).astype(np.float32)
    with torch.no_grad():
        expected = theirs.decode(torch.tensor(latents.swapaxes(1, 2))).sample.numpy().swapaxes(1, 2)
    atol = FAMILY_OUTPUT * max(1, np.abs(expected).max())
    np.testing.assert_allclose(model.decode(latents), expected, rtol=0, atol=atol)


def test_weights_of_another_kind_say_which_flags_fit_them(start, tmp_path, monkeypatch):
    """As Stable Audio's, if they should be of the time when both activations were one."""
    light_training.lighten(monkeypatch)  # its steps are not what is tested
    tied = family.model(ACE).config.to_dict()
    for half in ("encoder", "decoder"):
        tied[half]["config"]["tied_activations"] = True
    given = tmp_path / "tied.safetensors"
    checkpoints.save(given, small_models.model(ModelConfig.from_dict(tied)))
    status, lines = start("train_stable_audio_open.json", given)
    changes = [f"model.{half}.config.tied_activations=true" for half in ("decoder", "encoder")]
    assert status == 2 and all(f"--set {change}" in lines[-1] for change in changes), lines
    status, lines = start("train_stable_audio_open.json", given, *changes, "adversarial=null")
    assert status == 0, lines
