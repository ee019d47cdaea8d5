"""The variational bottleneck between encoder and decoder."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Posterior:
    """A diagonal normal distribution for every latent.

    Attributes:
      mean: [B, N, D]. The mean is the deterministic latent.
      scale: [B, N, D], as the encoder emits it.
      std_offset: `ModelConfig.std_offset`.
    """

    mean: Float[Array, "B N D"]
    scale: Float[Array, "B N D"]
    std_offset: float = dataclasses.field(default=0.0, metadata={"static": True})

    @classmethod
    def from_encoder(cls, output: Float[Array, "B N E"], *, std_offset: float = 0.0) -> "Posterior":
        """Splits the encoder's output into mean and scale."""
        mean, scale = jnp.split(output, 2, axis=-1)
        return cls(mean, scale, std_offset)

    @property
    def std(self) -> Float[Array, "B N D"]:
        """softplus(scale) + std_offset."""
        std = jax.nn.softplus(self.scale)
        return std + self.std_offset if self.std_offset else std

    def sample(self, key: PRNGKeyArray) -> Float[Array, "B N D"]:
        """mean + std · ε with standard normal ε."""
        return self.mean + self.std * jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def kl(self) -> Float[Array, ""]:
        """Mean over batch and time of Σ_channels (mean² + var − ln var − 1); no ½.

        var = std² + 1e-6, or std² where an offset keeps it from zero: so either kind of model was trained.
        """
        mean, std = self.mean.astype(jnp.float32), self.std.astype(jnp.float32)
        variance = jnp.square(std)
        if not self.std_offset:
            variance = variance + 1e-6
        return jnp.mean(jnp.sum(jnp.square(mean) + variance - jnp.log(variance) - 1, axis=-1))
