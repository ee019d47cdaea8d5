"""The latents of one piece of audio, and the files that hold them."""

from earvae_jax.infer.latents.files import (
    FORMAT_VERSION,
    NUMBER_FORMATS,
    Header,
    Latents,
    description,
    narrowed,
    number_format,
    read_header,
    read_latents,
    write_latents,
)

__all__ = [
    "FORMAT_VERSION",
    "NUMBER_FORMATS",
    "Header",
    "Latents",
    "description",
    "narrowed",
    "number_format",
    "read_header",
    "read_latents",
    "write_latents",
]
