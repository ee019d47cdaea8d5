"""εar-VAE in JAX: a 44.1/48 kHz stereo music autoencoder (arXiv 2509.14912).

Names are loaded on first use, so that `import earvae_jax` and `earvae --help` do not wait for JAX.
"""

import importlib
from pathlib import Path

# In a checkout the applications lie beside the library. Python that runs there imports this file, and not an
# installed copy, so it has to find them too.
_CHECKOUT = Path(__file__).parents[1]
if (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "infer" / "codec.py").is_file():
    __path__.append(str(_CHECKOUT))

_EXPORTS = {
    "load": "checkpoints",
    "save": "checkpoints",
    "EarVAE": "model.vae",
    "ModelConfig": "model.config",
    "Posterior": "model.bottleneck",
    "UserError": "errors",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
