"""The models that the page offers, and the one that is loaded."""

from pathlib import Path

from earvae_jax import demo
from earvae_jax.borders import shown
from earvae_jax.errors import UserError
from earvae_jax.infer.codec import Codec
from earvae_jax.known_models import KNOWN_MODELS

DTYPES = ("float32", "tf32", "bfloat16")
BUNDLED = "bundled"
_GIVEN = "given"


class Models:
    """What visitors choose from: the bundled model, the checkpoint of the command line, and the known models.

    One model is loaded at a time. A visitor sends a name of this list, never a path.

    Attributes:
      choices: (label, name) of each model.
      first: the name of the one that the page begins with.
    """

    def __init__(self, checkpoint: str | None = None):
        self._sources: dict[str, str | None] = {}
        self.choices: list[tuple[str, str]] = []
        if checkpoint is not None:
            self._offer(_GIVEN, shown(Path(checkpoint).name or checkpoint), checkpoint)
        if demo.MODEL.exists():
            self._offer(BUNDLED, "bundled demo model (small)", None)
        for known in KNOWN_MODELS:
            if known.name != checkpoint:
                self._offer(known.name, f"{known.name} (fetched once; {known.licence})", known.name)
        self.first = self.choices[0][1]
        self._loaded: tuple[tuple[str, str], Codec] | None = None

    def stage(self, name: str) -> str:
        """What a job says while it waits for the model."""
        fetched = self._sources.get(name) == name
        return (
            f"Loading {name}, which is fetched and converted at its first use"
            if fetched
            else "Loading the model"
        )

    def codec(self, name: str, dtype: str) -> Codec:
        """The codec of a model; only the thread whose turn it is calls this.

        Raises:
          UserError: the name or the dtype is not one of those offered, or the model cannot be loaded.
        """
        if name not in self._sources or dtype not in DTYPES:
            raise UserError(f"{name}, {dtype}: the page offers no such model or number format")
        if self._loaded is None or self._loaded[0] != (name, dtype):
            self._loaded = None  # the old one's memory is free before the new one takes its own
            self._loaded = (name, dtype), Codec.load(self._sources[name], dtype=dtype)
        return self._loaded[1]

    def _offer(self, name: str, label: str, source: str | None) -> None:
        self._sources[name] = source
        self.choices.append((label, name))
