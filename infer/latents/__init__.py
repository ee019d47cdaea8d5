"""The latents of one piece of audio, and the files that hold them."""

from earvae_jax.infer.latents.files import FORMAT_VERSION, Latents, read_latents, write_latents

__all__ = ["FORMAT_VERSION", "Latents", "read_latents", "write_latents"]
