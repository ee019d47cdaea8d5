"""The latents of one piece of audio, and the `.npz` files that hold them."""

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from earvae_jax.atomic import replacing
from earvae_jax.errors import UserError

FORMAT_VERSION = 1
DTYPES = ("float32", "float16")


@dataclasses.dataclass(frozen=True)
class Latents:
    """Mean and standard deviation of every latent, and what it takes to get the same length and rate back.

    Attributes:
      mean: [N, D].
      std: [N, D].
      sample_rate: of the audio that was encoded, in Hz.
      samples: of the audio that was encoded, at its own rate.
      channels: of the audio that was encoded.
      model: fingerprint of the model that encoded it.
      name: of the file it came from; seeds the noise of sampled latents.
      model_name: of that model's checkpoint, for a person to read.
    """

    mean: Float[np.ndarray, "N D"]
    std: Float[np.ndarray, "N D"]
    sample_rate: int
    samples: int
    channels: int
    model: str
    name: str = ""
    model_name: str = ""

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """The mean, the deterministic latent."""
        return np.array(self.mean, dtype=dtype, copy=copy)


def write_latents(
    path: str | Path, latents: Latents, *, dtype: str = "float32", metadata: dict[str, Any] | None = None
) -> None:
    """Writes `mean` and `std` [N, D], and a JSON string `metadata`; the file gets its name when it is whole.

    Raises:
      UserError: the file cannot be written, or float16 cannot hold a value.
    """
    arrays = {"mean": latents.mean, "std": latents.std}
    narrow = {name: array.astype(dtype) for name, array in arrays.items()}
    if not all(np.isfinite(array).all() for array in narrow.values()):
        raise UserError(f"{path}: a latent is too large for {dtype}: use --latent-dtype float32")
    described = {
        "format_version": FORMAT_VERSION,
        "sample_rate": latents.sample_rate,
        "samples": latents.samples,
        "channels": latents.channels,
        "model": latents.model,
        "model_name": latents.model_name,
        "name": latents.name,
        **(metadata or {}),
    }
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **narrow, metadata=np.asarray(json.dumps(described)))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None


def read_latents(path: str | Path) -> Latents:
    """Reads what `write_latents` wrote.

    Raises:
      UserError: no such file, not one of latents, or a damaged one.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            mean, std = (file[name].astype(np.float32) for name in ("mean", "std"))
            described = json.loads(str(file["metadata"]))
        version = described["format_version"]
        fields = {key: described[key] for key in ("sample_rate", "samples", "channels", "model", "name")}
        fields["model_name"] = described.get("model_name", "")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except KeyError as error:
        raise UserError(f"{path}: not a latent file of this project: {error} is missing") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a readable latent file ({str(error).splitlines()[0]})") from None
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: latent format {version}; this version reads format {FORMAT_VERSION}")
    if mean.ndim != 2 or mean.shape != std.shape or not len(mean):
        raise UserError(f"{path}: mean {mean.shape} and std {std.shape} are not two equal [N, D] arrays")
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise UserError(f"{path}: holds NaN or infinite latents")
    counts = [fields[key] for key in ("sample_rate", "samples", "channels")]
    if not all(isinstance(count, int) and count > 0 for count in counts):
        raise UserError(f"{path}: damaged: sample_rate, samples and channels must be whole numbers above 0")
    if not all(isinstance(fields[key], str) for key in ("model", "name", "model_name")):
        raise UserError(f"{path}: damaged: model, its name and the file's name must be text")
    return Latents(mean, std, **fields)
