"""Random latents for the tests of shards, and what must be found of them."""

import numpy as np

from earvae_jax.infer.latent_sets.records import Settings
from earvae_jax.infer.latent_sets.store import ShardStore
from earvae_jax.infer.latents import Latents, narrowed

RATE, RATIO, DIM, MODEL = 8000, 8, 4, "0123456789abcdef"


def settings(kind: str = "webdataset", dtype: str = "float32", holds: str = "mean+std") -> Settings:
    return Settings(kind, MODEL, RATE, RATIO, DIM, dtype, holds, "float32")


def latents(name: str, count: int) -> Latents:
    """Latents that depend on the name alone, off centre and of unequal spread."""
    random = np.random.default_rng(list(name.encode(errors="surrogateescape")))
    mean = 3 + random.standard_normal((count, DIM)) * (0.1, 1, 2, 5)
    std = random.uniform(0.1, 1, (count, DIM))
    audio = (RATE, count * RATIO - 3, 2)
    return Latents(mean.astype(np.float32), std.astype(np.float32), *audio, MODEL, name, "small.safetensors")


def stored(items: dict[str, int], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """All latents as they are in a collection, one after the other, in float64."""
    arrays = [narrowed(latents(name, count), dtype, name) for name, count in items.items()]
    mean, std = ([each[key].astype(np.float64) for each in arrays] for key in ("mean", "std"))
    return np.concatenate(mean), np.concatenate(std)


def write(folder, items: dict[str, int], made=None, *, size: float = 4000, process=0, processes=1) -> None:
    """What `earvae encode --shards` does once the latents are there."""
    folder.mkdir(exist_ok=True)
    with ShardStore(folder, made or settings(), size=size, process=process, processes=processes) as store:
        for name in list(items)[process::processes]:
            if name not in store.done:
                store.add(name, latents(name, items[name]))
