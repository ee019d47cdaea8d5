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
      scale: [B, N, D], as the encoder emits it; the standard deviation is its softplus.
    """

    mean: Float[Array, "B N D"]
    scale: Float[Array, "B N D"]

    @classmethod
    def from_encoder(cls, output: Float[Array, "B N E"]) -> "Posterior":
        """Splits the encoder's output into mean and scale."""
        return cls(*jnp.split(output, 2, axis=-1))

    @property
    def std(self) -> Float[Array, "B N D"]:
        """softplus(scale)."""
        return jax.nn.softplus(self.scale)

    def sample(self, key: PRNGKeyArray) -> Float[Array, "B N D"]:
        """mean + std · ε with standard normal ε."""
        return self.mean + self.std * jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def kl(self) -> Float[Array, ""]:
        """Mean over batch and time of Σ_channels (mean² + var − ln var − 1), var = std² + 1e-6; no ½."""
        mean, std = self.mean.astype(jnp.float32), self.std.astype(jnp.float32)
        variance = jnp.square(std) + 1e-6
        return jnp.mean(jnp.sum(jnp.square(mean) + variance - jnp.log(variance) - 1, axis=-1))
