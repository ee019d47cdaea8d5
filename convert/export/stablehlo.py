"""Encoder, transformer and decoder as StableHLO programs of `jax.export`, with the weights beside them.

A program takes the weights as its first argument. Inside it they would be constants: a copy in each program,
which XLA would fold for minutes and which no other program could share. Beside it they are one safetensors
file, and the three programs of any model are small.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util
from jax import export
from jaxtyping import Array, Float

from earvae_jax.errors import UserError, require
from earvae_jax.model.attention import BLOCK, blocks, joined
from earvae_jax.model.bottleneck import Posterior
from earvae_jax.model.layers import folded
from earvae_jax.model.transformer import Transformer
from earvae_jax.model.vae import EarVAE

EXTRA = "stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu", "rocm")
LAYOUT = "[batch, time, channels]"  # of audio and latents
_GPUS = {"gpu": ("cuda", "rocm")}
Weights = dict[str, jax.Array]


class Programs:
    """The parts of a model as functions of (weights, values), with batch and length left open.

    Attributes:
      weights: of all parts, by name; weight norms and snake parameters are folded.
    """

    def __init__(self, model: EarVAE):
        self.config = model.config
        self._graph, state = nnx.split(folded(model))
        flat = traverse_util.flatten_dict(nnx.to_pure_dict(state))
        self._paths = {".".join(map(str, path)): path for path in flat}
        self._state = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), state)
        self.weights: Weights = {name: jnp.asarray(flat[path]) for name, path in self._paths.items()}

    def exported(self, platforms: Sequence[str]) -> dict[str, export.Exported]:
        """The programs by name: `encoder`, `decoder`, and `transformer` if the model has one.

        Shapes: encoder [B, N·ratio, C] → mean [B, N, D], std [B, N, D]; transformer [B, N, D] → [B, N, D];
        decoder [B, N, D] → [B, T, C]. B and N are open, and each program runs on all of the platforms.

        Raises:
          UserError: as `check_ready`.
        """
        check_ready(platforms)
        config, longest = self.config, []
        if config.transformer is not None and config.transformer.use_abs_pos_emb:
            longest = [f"n <= {config.transformer.abs_pos_emb_max_length}"]
        codes = f"b, n, {config.latent_dim}"
        parts: dict[str, tuple[Callable[..., Any], tuple[str, list[str]]]] = {
            "encoder": (_encode, (f"b, {config.downsampling_ratio}*n, {config.io_channels}", [])),
            "decoder": (_decode, (codes, [])),
        }
        if config.transformer is not None:
            parts["transformer"] = (_transform, (codes, longest))
        return {
            name: self._exported(part, shape, constraints, platforms)
            for name, (part, (shape, constraints)) in parts.items()
        }

    def _exported(
        self,
        part: Callable[[EarVAE, Array], Any],
        shape: str,
        constraints: Sequence[str],
        platforms: Sequence[str],
    ) -> export.Exported:
        def program(weights: Weights, values: Array) -> Any:
            return part(self._model(weights), values)

        open_shape = export.symbolic_shape(shape, constraints=constraints)
        values = jax.ShapeDtypeStruct(open_shape, jnp.float32)
        arrays = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in self.weights.items()}
        with jax.default_matmul_precision("highest"):  # as the codec computes float32
            return export.export(jax.jit(program), platforms=list(platforms))(arrays, values)

    def _model(self, weights: Mapping[str, Array]) -> EarVAE:
        pure = traverse_util.unflatten_dict({path: weights[name] for name, path in self._paths.items()})
        state = jax.tree.map(lambda leaf: leaf, self._state)  # another object: the next line changes it
        nnx.replace_by_pure_dict(state, pure)
        return nnx.merge(self._graph, state)


def check_ready(platforms: Sequence[str]) -> None:
    """Refuses an unknown platform, or none, and says what to install.

    Raises:
      UserError: naming the platform or the extra.
    """
    for platform in platforms or ("",):
        if platform not in PLATFORMS:
            raise UserError(f"platform {platform!r}: choose from {', '.join(PLATFORMS)}")
    require("flatbuffers", extra=EXTRA)  # which JAX imports when it writes a program


def runs_here(platforms: Sequence[str]) -> bool:
    """Whether the programs run on JAX's own device here."""
    return bool({jax.default_backend(), *_GPUS.get(jax.default_backend(), ())} & set(platforms))


def runner(serialized: Mapping[str, bytearray], weights: Weights) -> dict[str, Callable[[Any], Any]]:
    """The programs as a user gets them: read from their bytes, with the weights given."""
    return {
        name: functools.partial(jax.jit(export.deserialize(bytearray(content)).call), weights)
        for name, content in serialized.items()
    }


def _encode(
    model: EarVAE, audio: Float[Array, "B T C"]
) -> tuple[Float[Array, "B N D"], Float[Array, "B N D"]]:
    posterior = Posterior.from_encoder(model.encoder(audio), std_offset=model.config.std_offset)
    return posterior.mean, posterior.std


def _transform(model: EarVAE, latents: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    """In blocks whatever the length: that is not known yet, and memory must not grow with its square."""
    transformer, count = model.transformers, latents.shape[1]
    assert isinstance(transformer, Transformer)
    cut = blocks(transformer.embed(latents), BLOCK)
    length = jnp.full((latents.shape[0],), count, jnp.int32)
    for layer in transformer.layers:
        cut = layer.in_blocks(cut, transformer.rotary_pos_emb, length)
    return joined(cut)[:, :count]


def _decode(model: EarVAE, latents: Float[Array, "B N D"]) -> Float[Array, "B T C"]:
    return model.decoder(latents)
