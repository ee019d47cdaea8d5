"""The published models, as their weights tell them: by the whole file, or by their strides."""

import dataclasses

from earvae_jax.known_models import bundled_config
from earvae_jax.model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Published:
    """One file of the Hugging Face model repository `earlab/EAR_VAE`; its config ships with this package."""

    name: str
    sha256: str

    @property
    def config(self) -> ModelConfig:
        """The model's config, sample rate included."""
        return bundled_config(self.name)


PUBLISHED = (
    Published("ear_vae_44k", "0362dc7e96566869747dbe079b0a6d71c090b0a3a5d5077779e7be17c096d9d5"),
    Published("ear_vae_v2_48k", "cc53f3f043aaae01307ffe1439b3a1c9d9e019652e6c13e089cd18d6037c2d3f"),
)


@dataclasses.dataclass(frozen=True)
class Relative:
    """A published Oobleck autoencoder of another project, known by its strides."""

    name: str
    config_name: str  # of the JSON in `configs/`

    @property
    def config(self) -> ModelConfig:
        """The model's config."""
        return bundled_config(self.config_name)


# None of them ends in tanh.
RELATIVES = (
    Relative("Stable Audio Open", "stable_audio_open"),
    Relative("ACE-Step 1.5", "ace_step_1.5"),
    Relative("YuE2", "yue2"),
)


def by_sha256(digest: str) -> Published | None:
    """The published file with this SHA-256, or None."""
    return next((published for published in PUBLISHED if published.sha256 == digest), None)
