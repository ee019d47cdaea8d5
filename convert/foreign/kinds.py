"""Says what a file holds that is no Oobleck autoencoder, as far as its keys or its first bytes tell."""

import re
from collections.abc import Iterable

# What names a kind (each pattern begins some key), and the kind in words; the first that fits counts.
_KINDS = (
    ((r"encoder\.block\.\d+\.", r"quantizer\.quantizers\."), "the Descript audio codec (DAC)"),
    ((r"encoder\.layers\.\d+\.conv\.", r"quantizer\.layers\."), "EnCodec"),
    ((r"encoder\.model\.\d+\.", r"quantizer\."), "EnCodec, or another codec of its kind (SEANet)"),
    ((r"(dcae\.)?encoder\.conv_in\.", r"vocoder\."), "ACE-Step 1.0's autoencoder (DCAE and a vocoder)"),
    ((r"encoder\.down_blocks\.\d+\.", r"encoder\.conv_in\."), "an image autoencoder of diffusers"),
    ((r"encoder\.conv_in\.",), "another autoencoder of diffusers"),
    (
        (r"encoder\.(.*\.)?(self_attn|attn|transformers?)\.",),
        "an autoencoder of transformers, as Stable Audio 3's is",
    ),
    ((r"conv_pre\.", r"(ups|resblocks)\.\d+\."), "a vocoder (BigVGAN, HiFi-GAN)"),
    (
        (r"encoder\.block\.\d+\.res_unit1\.", r"quantizer\."),
        "the Descript audio codec (DAC) as transformers has it",
    ),
    (
        (r"(model\.)*(diffusion_model|transformer|transformer_blocks)\.",),
        "a generator without its autoencoder",
    ),
)
# How files begin that lie where weights were meant to be, and what to do about it.
_HEADS = (
    (
        (b"version https://git-lfs.",),
        "a pointer of Git LFS in place of the weights: run git lfs pull where it was cloned",
    ),
    (
        (b"<!doctype", b"<html", b"<?xml"),
        "a web page in place of the weights: download it anew; what is gated needs hf auth login",
    ),
    (
        (b'{"', b"{\n", b"[", b"Entry not", b"Access to", b"Invalid "),
        "a text in place of the weights: download it anew",
    ),
    ((b"gguf",), "a GGUF file, which is not read: take the .safetensors or .ckpt that it was made of"),
)
HEAD = 64  # bytes that tell


def kind_of_content(head: bytes) -> str | None:
    """What a file is in place of weights, by its first bytes; None if they do not tell."""
    if not head:
        return "an empty file: damaged, or never downloaded"
    if 0 in head[:8] and not head.startswith(b"GGUF"):  # text has no zeros, and .safetensors begins with some
        return None
    begin = head.lstrip().lower()
    return next((what for heads, what in _HEADS if begin.startswith(tuple(map(bytes.lower, heads)))), None)


def kind_of(keys: Iterable[str]) -> str | None:
    """The kind of model in words, or None if the keys tell nothing."""
    keys = list(keys)
    for patterns, kind in _KINDS:
        begins = [re.compile(rf"(?:.*\.)?{pattern}") for pattern in patterns]
        if all(any(begin.match(key) for key in keys) for begin in begins):
            return kind
    return None
