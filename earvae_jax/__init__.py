"""εar-VAE in JAX: a 44.1/48 kHz stereo music autoencoder (arXiv 2509.14912).

Names are loaded on first use, so that `import earvae_jax` and `earvae --help` do not wait for JAX.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see
    from earvae_jax.checkpoints import load, save
    from earvae_jax.errors import UserError
    from earvae_jax.model.bottleneck import Posterior
    from earvae_jax.model.config import ModelConfig
    from earvae_jax.model.vae import EarVAE

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

__all__ = ["EarVAE", "ModelConfig", "Posterior", "UserError", "load", "save"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
