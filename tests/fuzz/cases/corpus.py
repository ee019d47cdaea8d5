"""The whole inputs from which odd ones are made: small models, synthetic sound, nothing that is committed."""

import dataclasses
import hashlib
import io
import json
import shutil
import wave
from pathlib import Path

import numpy as np
import small_models
import soundfile

from earvae_jax import checkpoints
from earvae_jax.errors import require
from earvae_jax.model.config import TransformerConfig

RATE = small_models.SAMPLE_RATE
# Codec, container and its suffix, as ffmpeg names them.
_FFMPEG = (
    ("aac", "ipod", ".m4a"), ("aac", "adts", ".aac"), ("libopus", "webm", ".webm"), ("libopus", "matroska",
    ".mkv"),
    ("alac", "mov", ".mov"), ("ac3", "ac3", ".ac3"), ("wmav2", "asf", ".wma"), ("libvorbis", "matroska",
    ".mka"),
)  # fmt: skip
_LIBSNDFILE = (
    ("WAV", "PCM_16", ".wav"), ("WAV", "FLOAT", ".wav"), ("WAV", "PCM_24", ".wav"), ("WAV", "IMA_ADPCM",
    ".wav"),
    ("WAVEX", "PCM_16", ".wav"), ("AIFF", "PCM_16", ".aiff"), ("AU", "PCM_16", ".au"), ("CAF", "PCM_16",
    ".caf"),
    ("CAF", "ALAC_16", ".caf"), ("W64", "PCM_16", ".w64"), ("RF64", "PCM_16", ".rf64"), ("FLAC", "PCM_16",
    ".flac"),
    ("OGG", "VORBIS", ".ogg"), ("OGG", "OPUS", ".opus"), ("MP3", "MPEG_LAYER_III", ".mp3"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Where the whole inputs lie."""

    folder: Path

    def bytes(self, kind: str) -> dict[str, bytes]:
        """Every file of a kind ("audio", "weights", "latents") by name."""
        return _read(self.folder / kind)

    @property
    def checkpoint(self) -> Path:
        """A whole model, for commands whose other input is odd."""
        return self.folder / "models" / "plain.safetensors"

    @property
    def transformer_checkpoint(self) -> Path:
        """The same as a folder of Orbax, with a transformer."""
        return self.folder / "models" / "transformer"

    @property
    def tone(self) -> Path:
        """Whole audio."""
        return self.folder / "audio" / "WAV-PCM_16.wav"

    def json(self, name: str) -> dict:
        """A whole config."""
        return json.loads((self.folder / "configs" / name).read_text(encoding="utf-8"))


_CACHE: dict[Path, dict[str, bytes]] = {}


def _read(folder: Path) -> dict[str, bytes]:
    if folder not in _CACHE:
        _CACHE[folder] = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    return _CACHE[folder]


def make_or_read(folder: Path) -> Seeds:
    """Makes what is not there yet; a campaign keeps its seed files, as encoders differ between versions."""
    seeds = Seeds(folder)
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        for kind in ("audio", "weights", "latents", "models", "configs"):
            (folder / kind).mkdir(parents=True)
        models = {
            "plain": small_models.model(small_models.KINDS["even strides"]),
            "transformer": small_models.model(small_models.KINDS["transformer"]),
        }
        _make_models(seeds, models)
        _make_configs(seeds, models)
        _make_audio(folder / "audio")
        _make_latents(seeds)
        (folder / "whole").touch()
    return seeds


def _make_models(seeds: Seeds, models: dict) -> None:
    for name, model in models.items():
        for suffix in ("", ".safetensors"):
            path = seeds.folder / "models" / (name + suffix)
            checkpoints.save(path, model, provenance={"source": "fuzz"})
        _make_weights(seeds.folder / "weights", name, model)


def _make_weights(folder: Path, name: str, model) -> None:
    torch = require("torch", extra="torch")
    import safetensors.torch

    from earvae_jax.convert.to_torch import state_dict

    state = state_dict(model)
    torch.save(state, folder / f"{name}.pyt")
    torch.save(state, folder / f"{name}-legacy.pt", _use_new_zipfile_serialization=False)
    ema = {f"ema_model.{key}": tensor for key, tensor in state.items()}
    whole = {"gen": state, "gen_ema": ema, "epoch": 3, "options": {"lr": 1e-3, "betas": (0.8, 0.99)}}
    torch.save(whole, folder / f"{name}.ckpt")
    safetensors.torch.save_file(
        {key: tensor.clone() for key, tensor in state.items()}, folder / f"{name}.safetensors"
    )


def _make_configs(seeds: Seeds, models: dict) -> None:
    import small_training

    from earvae_jax.train.config import BUNDLED

    plain = small_training.config().to_dict()
    with_transformer = small_training.config(transformer=True, adversarial=None).to_dict()
    values = {f"model-{name}.json": model.config.to_dict() for name, model in models.items()}
    values["model-options.json"] = small_models.config(
        (2, 3), latent_dim=64, antialias_activation=True, use_nearest_upsample=True,
        transformer=TransformerConfig(depth=2, dim_heads=64, conformer=True),
    ).to_dict()  # fmt: skip
    values |= {"train-plain.json": plain, "train-transformer.json": with_transformer}
    for name in ("ear_vae_44k", "train_44k", "train_demo", "demo_44k"):
        kind = "train" if name.startswith("train") else "model"
        values[f"{kind}-{name}.json"] = json.loads((BUNDLED / f"{name}.json").read_text(encoding="utf-8"))
    for name, value in values.items():
        (seeds.folder / "configs" / name).write_text(json.dumps(value), encoding="utf-8")


def sound(seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    """Two tones and a little noise, [T, 2]."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal((len(time), 2))
    tones = np.stack([np.sin(880 * np.pi * time), np.sin(660 * np.pi * time)], axis=-1)
    return (0.3 * tones + 0.05 * noise).astype(np.float32)


def _make_audio(folder: Path) -> None:
    for form, subtype, suffix in _LIBSNDFILE:
        rate = 48_000 if subtype in ("OPUS", "MPEG_LAYER_III") else RATE
        soundfile.write(
            folder / f"{form}-{subtype}{suffix}", sound(rate=rate), rate, format=form, subtype=subtype
        )
    mono = io.BytesIO()
    with wave.open(mono, "wb") as file:
        file.setparams((1, 1, 11_025, 0, "NONE", ""))
        file.writeframes(bytes(range(256)) * 20)
    (folder / "mono-8-bit.wav").write_bytes(mono.getvalue())
    for codec, container, suffix in _FFMPEG:
        _write_ffmpeg(folder / f"{container}-{codec}{suffix}", codec, container)


def _write_ffmpeg(path: Path, codec: str, container: str) -> None:
    av = require("av", extra="ffmpeg")
    try:
        av.codec.Codec(codec, "w")
    except ValueError:
        return  # this build of ffmpeg has no such encoder
    rate = 48_000
    with av.open(str(path), "w", format=container, container_options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream(codec, rate=rate, layout="stereo")
        stream.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(sound(rate=rate).T), format="fltp", layout="stereo"
        )
        frame.sample_rate = rate
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def _make_latents(seeds: Seeds) -> None:
    from earvae_jax.infer import Codec
    from earvae_jax.infer.latents import write_latents

    for name, path in (("plain", seeds.checkpoint), ("transformer", seeds.transformer_checkpoint)):
        latents = Codec.load(path).encode(sound(), sample_rate=RATE, name=name)
        for dtype in ("float32", "float16"):
            write_latents(seeds.folder / "latents" / f"{name}-{dtype}.npz", latents, dtype=dtype)


def digest(seeds: Seeds) -> str:
    """Of all seed files: two campaigns of one seed are alike where this is."""
    files = sorted(path for path in seeds.folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
