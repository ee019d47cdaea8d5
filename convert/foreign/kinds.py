"""Says what a weights file holds that is no Oobleck autoencoder, as far as its keys tell."""

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


def kind_of(keys: Iterable[str]) -> str | None:
    """The kind of model in words, or None if the keys tell nothing."""
    keys = list(keys)
    for patterns, kind in _KINDS:
        begins = [re.compile(rf"(?:.*\.)?{pattern}") for pattern in patterns]
        if all(any(begin.match(key) for key in keys) for begin in begins):
            return kind
    return None
