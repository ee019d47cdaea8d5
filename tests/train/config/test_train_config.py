"""Training configs: every wrong key and value is one line that names it, and model files are found."""

import json
import re

import pytest
import small_models
import small_training

from earvae_jax.errors import UserError
from earvae_jax.model.config import TransformerConfig
from earvae_jax.train.config import BUNDLED, TrainConfig, bundled_or_file


@pytest.fixture
def config_file(tmp_path):
    """A config as a user writes it, its model in a file beside it."""
    folder = tmp_path / "configs"
    folder.mkdir()
    values = small_training.config().to_dict()
    (folder / "model.json").write_text(json.dumps(values["model"]))
    (folder / "train.json").write_text(json.dumps(values | {"model": "model.json"}))
    return folder / "train.json"


def refusal(config_file, *overrides) -> str:
    with pytest.raises(UserError) as caught:
        TrainConfig.from_json(config_file, overrides)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(config_file))
    return message.removeprefix(f"{config_file}: ").removeprefix("training config: ")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train=5", "data.train is 5; expected a string or a list of strings"),
        ("data.train=null", "data.train is null; expected a string or a list of strings"),
        ('data.train=["a", 5]', 'data.train is ["a", 5]; expected a string or a list of strings'),
        ("data.train=", 'data.train is [""]; expected paths, none of them empty'),
        ('data.validation={"a": 1}', 'data.validation is {"a": 1}; expected a string or a list of strings'),
        ("data.gain_db=3", "data.gain_db is 3; expected a list of 2 numbers"),
        ("data.gain_db=[3]", "data.gain_db is [3]; expected a list of 2 numbers"),
        ("data.gain_db=[3, -3]", "data.gain_db is [3.0, -3.0]; expected [low, high]"),
        ("data.gain_db=[0, NaN]", "data.gain_db is [0, NaN]; expected a list of 2 numbers"),
        ("data.threads=0", "data.threads is 0; expected a positive number"),
        ("data.batch_size=2.5", "data.batch_size is 2.5; expected a whole number"),
        ("data.flip_polarity=1", "data.flip_polarity is 1; expected true or false"),
        ("data.silence_db=quiet", 'data.silence_db is "quiet"; expected a number'),
        ("data=5", "data is 5; expected an object"),
        ("data.train.first=a", 'data.train is {"first": "a"}; expected a string or a list of strings'),
        ("optimizer.betas=0.5", "optimizer.betas is 0.5; expected a list of 2 numbers"),
        ("optimizer.betas=[0.5, 0.9, 0.9]", "betas is [0.5, 0.9, 0.9]; expected a list of 2 numbers"),
        ("optimizer.betas=[0.5, 1]", "optimizer.betas is [0.5, 1.0]; expected two numbers in [0, 1)"),
        ("optimizer.betas=[-0.1, 0.9]", "optimizer.betas is [-0.1, 0.9]; expected two numbers in [0, 1)"),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay is -1.0; expected 0 or a positive number"),
        ("optimizer.epsilon=0", "optimizer.epsilon is 0.0; expected a positive number"),
        ("optimizer.cooldown_steps=-1", "optimizer.cooldown_steps is -1; expected 0 or a positive number"),
        ("optimizer.clip_norm=0", "optimizer.clip_norm is 0.0; expected a positive number or null"),
        ("optimizer.clip_norm=high", 'optimizer.clip_norm is "high"; expected a number or null'),
        ("optimizer.learning_rate=Infinity", "optimizer.learning_rate is Infinity; expected a number"),
        ("optimizer.lr=1", "unknown key optimizer.lr"),
        ("optimizer={}", "optimizer.learning_rate is missing"),
        ("objective.n_ffts=512", "objective.n_ffts is 512; expected a list of whole numbers"),
        ("objective.n_ffts=512,256", 'objective.n_ffts is "512,256"; expected a list of whole numbers'),
        ("objective.n_ffts=[]", "objective.n_ffts is []; expected a list of different sizes of at least 4"),
        ("objective.n_ffts=[2]", "objective.n_ffts is [2]; expected a list of different sizes of at least 4"),
        (
            "objective.phase_n_ffts=[64, 64]",
            "objective.phase_n_ffts is [64, 64]; expected a list of different",
        ),
        ("objective.hop_fraction=0", "objective.hop_fraction is 0; expected a positive number"),
        (
            "objective.hop_fraction=128",
            "objective.n_ffts is [64]; expected a list of different sizes of at least 128",
        ),
        ("objective.correlation=-1", "objective.correlation is -1.0; expected 0 or a positive number"),
        ("objective.weighting=loud", 'objective.weighting is "loud"; expected "magnitude" or null'),
        ("adversarial.weight=-1", "adversarial.weight is -1.0; expected 0 or a positive number"),
        ("adversarial.kind=gan", 'adversarial.kind is "gan"; expected "least_squares" or "hinge"'),
        ("adversarial.optimizer.betas=1", "adversarial.optimizer.betas is 1; expected a list of 2 numbers"),
        (
            "adversarial.optimizer.warmup=1",
            "adversarial.optimizer.warmup is 1.0; expected a number in [0, 1)",
        ),
        ("adversarial.discriminator.dilations=[0]", "adversarial.discriminator.dilations is [0]; expected"),
        (
            "adversarial.discriminator.filters=0",
            "adversarial.discriminator.filters is 0; expected a positive",
        ),
        ("adversarial.discriminator.n_ffts=64", "adversarial.discriminator.n_ffts is 64; expected a list of"),
        ("adversarial=yes", 'adversarial is "yes"; expected an object or null'),
        ("seed=-1", "seed is -1; expected a number from 0 to 2147483647"),
        ("steps=2147483648", "steps is 2147483648; expected a whole number below 2^31"),
        (
            "optimizer.cooldown_steps=2147483648",
            "cooldown_steps is 2147483648; expected a whole number below",
        ),
        (
            "objective.n_ffts=[64, 2147483648]",
            "n_ffts is [64, 2147483648]; expected a list of whole numbers below",
        ),
        ("seed=4294967296", "seed is 4294967296; expected a whole number below 2^31"),
        ("steps=true", "steps is true; expected a whole number"),
        ("kl_weight=-1", "kl_weight is -1.0; expected 0 or a positive number"),
        ("ema_decay=1", "ema_decay is 1.0; expected a number in [0, 1)"),
        ("accumulate=3", "data.batch_size is 4; expected a multiple of accumulate, 3"),
        ("compute_dtype=float16", 'compute_dtype is "float16"; expected "float32" or "bfloat16"'),
        ("model=5", "model is 5; expected an object"),
        ("model.sample_rate=null", "model.sample_rate is null; expected the rate of the music in Hz"),
        ("model.sample_rate=high", '"sample_rate"'),
        ("nonsense", "--set nonsense: expected key=value"),
        ("data.train=[/music]", "--set data.train=[/music]: not JSON"),
    ],
)
def test_wrong_values_are_named(config_file, override, message):
    assert message in refusal(config_file, override)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.crop_samples=1001"],
            "data.crop_samples is 1001; expected a multiple of the model's 8 samples",
        ),
        (
            ["objective.phase_n_ffts=[2048]"],
            "data.crop_samples is 1024; expected at least 2048, the largest STFT frame of objective",
        ),
        (
            ["adversarial.discriminator.n_ffts=[64, 1025]"],
            "data.crop_samples is 1024; expected at least 1025, the largest STFT frame of adversarial.disc",
        ),
        (
            [f"objective.{name}=0" for name in ("spectral_convergence", "log_magnitude", "correlation")]
            + [f"objective.{name}=0" for name in ("instantaneous_frequency", "group_delay", "waveform")],
            "group_delay, waveform, log_waveform are all 0; expected a positive weight",
        ),
    ],
)
def test_impossible_combinations_are_refused_with_their_numbers(config_file, overrides, message):
    assert message in refusal(config_file, *overrides)


def test_models_that_cannot_be_trained_are_refused():
    values = small_training.config().to_dict()
    crop = values["data"] | {"crop_samples": 1026}
    odd = small_models.config((2, 3)).to_dict()
    with pytest.raises(UserError, match="gives back 1024 samples of a crop of 1026, but losses need as many"):
        TrainConfig.from_dict(values | {"model": odd, "data": crop})
    nearest = small_models.config((2, 3), use_nearest_upsample=True).to_dict()
    TrainConfig.from_dict(values | {"model": nearest, "data": crop})
    short = TransformerConfig(depth=1, dim_heads=32, use_abs_pos_emb=True, abs_pos_emb_max_length=9)
    bounded = small_models.config((8,), latent_dim=32, transformer=short).to_dict()
    with pytest.raises(
        UserError, match="at most 9 latents, the model's abs_pos_emb_max_length; these are 128"
    ):
        TrainConfig.from_dict(values | {"model": bounded})
    mono = values["model"] | {"io_channels": 1}
    for half, key in (("encoder", "in_channels"), ("decoder", "out_channels")):
        mono[half] = {"config": mono[half]["config"] | {key: 1}}
    with pytest.raises(UserError, match=r"model\.io_channels is 1; expected 2"):
        TrainConfig.from_dict(values | {"model": mono})


def test_values_as_they_are_meant(config_file):
    config = TrainConfig.from_json(
        config_file,
        ["data.train=/music", "data.gain_db=[-6, 0]", "optimizer.clip_norm=null", "kl_weight=0"],
    )
    assert config.data.train == ("/music",)
    assert config.data.gain_db == (-6.0, 0.0) and isinstance(config.data.gain_db[0], float)
    assert config.optimizer.clip_norm is None and config.kl_weight == 0
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert TrainConfig.from_json(config_file, ["adversarial=null"]).adversarial is None


def test_a_model_file_is_read_before_what_is_below_it_changes(config_file):
    config = TrainConfig.from_json(config_file, ["model.sample_rate=16000"])
    assert config.model_config.sample_rate == 16_000
    assert config.model == {**small_training.config().model, "sample_rate": 16_000}


def test_model_files_lie_here_beside_the_config_or_in_the_package(config_file, tmp_path, monkeypatch):
    def rate(*overrides):
        return TrainConfig.from_json(config_file, overrides).model_config.sample_rate

    monkeypatch.chdir(tmp_path)
    other = small_training.config().to_dict()["model"]
    (config_file.parent / "mine.json").write_text(json.dumps(other | {"sample_rate": 11_025}))
    assert rate("model=mine.json") == 11_025
    (tmp_path / "mine.json").write_text(json.dumps(other | {"sample_rate": 22_050}))
    assert rate("model=mine.json") == 22_050
    assert rate("model.sample_rate=16000", "model=mine.json") == 16_000, "in any order"
    (tmp_path / "model.json").write_text(json.dumps(other | {"sample_rate": 96_000}))
    assert rate() == small_models.SAMPLE_RATE, "what the config itself names lies beside it"
    assert rate("model=demo_44k.json", "data.crop_samples=2048") == 44_100
    message = refusal(config_file, "model=gone.json")
    assert message == (
        f"model is gone.json; no such file: gone.json, {config_file.parent / 'gone.json'}, "
        f"{BUNDLED / 'gone.json'}"
    )


def test_an_unknown_config_names_the_bundled_ones():
    with pytest.raises(
        UserError, match=r"train_45k\.json: no such config file; the bundled ones are .*train_44k\.json"
    ):
        bundled_or_file("train_45k.json")


# What changes neither the data trained on nor the training.
BESIDE = {"train", "validation", "validation_items", "threads", "buffered_batches"}
BESIDE |= {"log_every", "validate_every", "songs_every", "checkpoint_every", "keep_checkpoints"}


def _keys(values, prefix=()):
    """Of all values that matter."""
    for name, value in values.items():
        if name in BESIDE:
            continue
        if isinstance(value, dict) and name != "model":
            yield from _keys(value, (*prefix, name))
        else:
            yield (*prefix, name)


@pytest.mark.parametrize(
    "name", ["train_44k.json", "train_48k.json", "train_stable_audio_open.json", "train_ace_step.json"]
)
def test_the_published_recipes_say_where_each_value_comes_from(name):
    """Defaults too: each key, or the group that it is in, stands in one of the three comments, once."""
    comments = [text for key, text in json.loads((BUNDLED / name).read_text()).items() if key[0] == "#"]
    marked = [word for text in comments for word in re.findall(r"[a-z_]+(?:\.[a-z_]+)*", text)]
    for keys in _keys(TrainConfig.from_json(BUNDLED / name).to_dict()):
        marks = sum(marked.count(".".join(keys[:length])) for length in range(1, len(keys) + 1))
        assert marks == 1, f"{'.'.join(keys)} is marked {marks} times"
