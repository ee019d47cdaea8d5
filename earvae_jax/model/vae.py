"""The εar-VAE model."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from earvae_jax.arrays import full_scale, is_floating, numeric_array
from earvae_jax.errors import UserError
from earvae_jax.model.bottleneck import Posterior
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.oobleck import Decoder, Encoder
from earvae_jax.model.transformer import Transformer


class EarVAE(nnx.Module):
    """The autoencoder of arXiv 2509.14912: encoder, bottleneck, transformer and decoder.

    `encode` and `decode` compute a whole file at once, as published; `earvae_jax.infer.Codec` gives the same
    result for files of any length. Without `rngs` the arrays have shapes but no values: `parameters.build`
    fills them from a checkpoint.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs | None):
        self.config = config
        self.encoder = Encoder(config.encoder, rngs=rngs)
        if config.transformer is None:
            self.transformers = None
        else:
            self.transformers = Transformer(config.latent_dim, config.transformer, rngs=rngs)
        self.decoder = Decoder(config.decoder, rngs=rngs)

    def encode(self, audio: Float[Array, "B T C"]) -> Posterior:
        """Encodes audio at the model's rate to [B, N, D]; N = ⌊T / downsampling_ratio⌋ for even strides.

        Samples at the end that do not fill a latent are lost, as in the published code. Audio is floats with
        full scale 1: float16 and bfloat16 are computed in that type and give latents of that type; float64
        becomes JAX's default.

        Raises:
          UserError: the audio is not floats, has another shape, or is shorter than one latent.
        """
        audio = _floats(audio, "audio")
        channels = self.config.io_channels
        if audio.ndim != 3 or audio.shape[-1] != channels:
            remedy = ""
            if audio.ndim == 3 and audio.shape[1] == channels:
                remedy = ": transpose it, as in audio.swapaxes(1, 2)"
            elif audio.ndim == 2 and audio.shape[1] == channels:
                remedy = ": add the batch's axis, as in audio[None]"
            raise UserError(f"audio has shape {audio.shape}; expected [batch, samples, {channels}]{remedy}")
        if audio.shape[1] < self.config.downsampling_ratio:
            raise UserError(
                f"audio has {audio.shape[1]} samples, fewer than the {self.config.downsampling_ratio} of one "
                "latent: pad it with zeros"
            )
        return Posterior.from_encoder(self.encoder(audio), std_offset=self.config.std_offset)

    def decode(self, latents: Float[Array, "B N D"]) -> Float[Array, "B T C"]:
        """Decodes latents to audio; T = N · downsampling_ratio for even strides.

        Raises:
          UserError: the latents are not floats, or have another shape.
        """
        latents = _floats(latents, "latents")
        dim = self.config.latent_dim
        if latents.ndim != 3 or latents.shape[-1] != dim or latents.shape[1] < 1:
            raise UserError(f"latents have shape {latents.shape}; expected [batch, latents, {dim}]")
        if self.transformers is not None:
            latents = self.transformers(latents)
        return self.decoder(latents)

    def __call__(
        self, audio: Float[Array, "B T C"], *, key: PRNGKeyArray
    ) -> tuple[Float[Array, "B T2 C"], Float[Array, ""]]:
        """The training forward pass: a reconstruction from sampled latents, and the KL divergence."""
        posterior = self.encode(audio)
        return self.decode(posterior.sample(key)), posterior.kl()


def _floats(values: Any, what: Literal["audio", "latents"]) -> Array:
    array = numeric_array(values, what)
    dtype = array.dtype
    if is_floating(dtype):
        if dtype.itemsize == 1:
            raise UserError(f"{what}: {dtype} values; a model computes in 16 or 32 bits")
        return jnp.asarray(array)
    if what == "latents":
        raise UserError(f"latents are {dtype}; expected floats: integers have no scale here")
    scale = full_scale(dtype)
    amplitudes = f"audio / {scale}" if dtype.kind == "i" else f"(audio - {scale}.0) / {scale}"
    raise UserError(
        f"audio is {dtype}, and the model takes floats of full scale 1: pass {amplitudes}, or let "
        "earvae_jax.infer.Codec scale it"
    )
