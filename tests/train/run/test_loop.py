"""The training loop: it continues bit for bit, loses nothing, and says what is wrong with its input."""

import shutil
import signal

import jax
import light_training
import numpy as np
import pytest
import small_models
import small_training
from light_training import assert_same_run, run_command, saved_steps, state_of, write_config

pytest.importorskip("grain", reason="training needs the extra `train`")
pytest.importorskip("tensorboardX", reason="training needs the extra `train`")

from earvae_jax import checkpoints
from earvae_jax.audio.writer import write
from earvae_jax.errors import UserError
from earvae_jax.train.run.loop import train
from earvae_jax.train.step.step import Trainer

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run of 8 steps, warm-up and adversarial, and its folder."""
    workdir = tmp_path_factory.mktemp("finished")
    assert train(small_training.config(), workdir) == 8
    return workdir


def test_continues_bit_for_bit(finished, tmp_path):
    """Before and after the start of the adversarial terms, with and without a regular checkpoint there."""
    for steps in (1, 6, 8):
        assert train(small_training.config(steps=steps), tmp_path) == steps
    assert_same_run(finished, tmp_path, small_training.config())
    ours, whole = (checkpoints.read_info(folder / "model.safetensors") for folder in (tmp_path, finished))
    assert ours.fingerprint == whole.fingerprint


def test_a_finished_run_is_left_as_it_is(finished):
    before = state_of(finished, small_training.config())
    assert train(small_training.config(), finished) == 8
    after = state_of(finished, small_training.config())
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_the_written_model_is_the_average(finished):
    model = checkpoints.load(finished / "model.safetensors")
    trainer = Trainer(small_training.config())
    state = state_of(finished, trainer.config)
    names = {name for name in state if name.startswith("average.")}
    arrays = {name.removeprefix("average."): state[name] for name in names}
    assert len(arrays) > 10
    from flax import nnx

    parameters = nnx.as_pure(nnx.split(model, nnx.Param, ...)[1])
    for path, leaf in jax.tree.leaves_with_path(parameters):
        np.testing.assert_array_equal(leaf, arrays[jax.tree_util.keystr(path, simple=True, separator=".")])


def test_fine_tuning_starts_from_the_given_weights(tmp_path):
    optimizer = {"learning_rate": 1e-9, "warmup": 0.0}
    config = small_training.config(steps=1, adversarial=None, optimizer=optimizer)
    given = small_models.model(config.model_config, seed=3)
    train(config, tmp_path, initial=given)
    from earvae_jax.parameters import named_arrays

    trained = named_arrays(checkpoints.load(tmp_path / "model.safetensors"))
    for name, array in named_arrays(given).items():
        np.testing.assert_allclose(trained[name], array, rtol=0, atol=1e-6, err_msg=name)


def test_a_signal_saves_and_the_same_command_continues(tmp_path):
    config = light_training.config(steps=40, checkpoint_every=1000, validate_every=1000)
    config_file = write_config(tmp_path / "config.json", config)
    for saved, number in enumerate((signal.SIGINT, signal.SIGTERM), start=1):
        process = run_command(config_file, tmp_path / "run")
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("step ") and not line.startswith("step 1/"):
                break
        process.send_signal(number)
        errors = "".join(said) + process.communicate()[1]
        assert process.returncode == 0, errors
        assert "the same command continues" in errors
        assert ("continuing" in errors) == (saved == 2), errors
        assert len(saved_steps(tmp_path / "run")) == saved


def test_another_config_is_refused_with_what_differs(finished):
    other = small_training.config(optimizer={"learning_rate": 1e-3, "warmup": 0.5})
    with pytest.raises(UserError, match=r"optimizer\.warmup was 0\.0, is 0\.5") as caught:
        train(other, finished)
    assert str(finished) in str(caught.value)


def test_another_version_is_refused(finished, tmp_path, monkeypatch):
    from earvae_jax.train.run import checkpoints as run_checkpoints

    monkeypatch.setattr(run_checkpoints, "FORMAT_VERSION", 99)
    with pytest.raises(UserError, match="this version reads 99"):
        train(small_training.config(), finished)


def test_checkpoints_damaged_and_half_written_lose_no_more_than_themselves(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    latest = run / "checkpoints" / "8"
    shutil.copytree(latest, latest.with_name("9.orbax-checkpoint-tmp-1"))
    for path in latest.rglob("*"):
        if path.is_file() and path.stat().st_size > 2000:
            path.write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match=r"checkpoints/8: damaged .*; delete this folder .* step 6"):
        train(small_training.config(), run)
    shutil.rmtree(latest)
    assert train(small_training.config(), run) == 8
    assert_same_run(finished, run, small_training.config())


def test_many_bad_steps_in_a_row_stop_training(tmp_path, monkeypatch):
    from earvae_jax.train.data import batches as data

    monkeypatch.setattr(
        data.synthetic, "render", lambda *_, samples, **__: np.full((samples, 2), np.nan, np.float32)
    )
    config = small_training.config(adversarial=None, max_skipped_steps=3, steps=20)
    monkeypatch.setattr(
        "earvae_jax.train.run.loop.validation_audio", lambda *_, **__: np.ones((2, small_training.CROP, 2))
    )
    with pytest.raises(UserError, match=r"3 steps in a row.*learning_rate"):
        train(config, tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "optimizer.lr=1"), "unknown key optimizer.lr"),
        (("--set", "steps=many"), "steps"),
        (("--set", "data.batch_size=0"), "batch_size"),
        (("--set", "data.crop_samples=1001"), "crop_samples"),
        (("--set", "nonsense"), "key=value"),
        (("--set", 'data.train=["/no/such/folder"]'), "/no/such/folder"),
        (("--init", "/no/such/model"), "/no/such/model"),
    ],
)
def test_wrong_calls_are_one_line(tmp_path, earvae, words, message):
    config_file = write_config(tmp_path / "config.json", small_training.config())
    status, lines = earvae("train", "--config", config_file, "--workdir", tmp_path / "run", *words)
    assert status == 2
    assert len(lines) == 1 and message in lines[0], lines


@pytest.mark.parametrize("text", ["", "[]", "{", '{"steps": 5}'])
def test_broken_configs_name_the_file(tmp_path, earvae, text):
    path = tmp_path / "broken.json"
    path.write_text(text)
    status, lines = earvae("train", "--config", path, "--workdir", tmp_path / "run")
    assert status == 2 and len(lines) == 1 and str(path) in lines[0], lines


def test_trains_on_recordings(tmp_path):
    noise = np.random.default_rng(0)
    for number in range(4):
        audio = 0.1 * noise.standard_normal((4000, 2), np.float32)
        write(tmp_path / "music" / f"{number}.wav", audio, small_models.SAMPLE_RATE)
    (tmp_path / "music" / "broken.wav").write_bytes(b"no audio")
    data = {"train": [str(tmp_path / "music")], "crop_samples": small_training.CROP, "batch_size": 4}
    config = small_training.config(steps=2, adversarial=None, data=data | {"validation_items": 2})
    assert train(config, tmp_path / "run") == 2


def test_tensorboard_holds_scalars_audio_and_pictures(finished):
    files = list((finished / "tensorboard").iterdir())
    content = b"".join(path.read_bytes() for path in files)
    for tag in (b"train/loss", b"validation/si_sdr", b"audio/0_original", b"spectrogram/0_reconstruction"):
        assert tag in content


def test_bundled_configs_are_valid():
    from earvae_jax.train.config import TrainConfig, bundled_or_file

    for name in (
        "train_44k.json",
        "train_48k.json",
        "train_demo.json",
        "train_ace_step.json",
        "train_stable_audio_open.json",
    ):
        config = TrainConfig.from_json(bundled_or_file(name), [])
        assert config == type(config).from_dict(config.to_dict())
