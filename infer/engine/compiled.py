"""Runs the model on windows as compiled functions: folded weights, one program per size, many devices."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from jaxtyping import Array, Float, Int

from earvae_jax.errors import UserError
from earvae_jax.infer.formulations.choice import choose_formulation
from earvae_jax.model.attention import BLOCK
from earvae_jax.model.bottleneck import Posterior
from earvae_jax.model.config import TransformerConfig
from earvae_jax.model.layers import Extent
from earvae_jax.model.vae import EarVAE
from earvae_jax.targets.devices import place

# For each --dtype: the type of the activations, and the precision of float32 products.
# float32 is exact; tf32 lets an NVIDIA GPU round factors to 10 bits.
DTYPES = {"float32": ("float32", "highest"), "tf32": ("float32", "default"), "bfloat16": ("bfloat16", None)}


class CompiledModel:
    """Runs batches of windows. Inputs and outputs are float32; a call may return before it has computed.

    A batch is split over the devices, so its size is a multiple of their number. Each holds all weights.
    """

    def __init__(
        self,
        model: EarVAE,
        *,
        dtype: str = "float32",
        devices: Sequence[jax.Device] | None = None,
        formulation: str = "auto",
    ):
        if dtype not in DTYPES:
            raise UserError(f"dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
        self.config = model.config
        self.devices = tuple(devices or jax.local_devices())
        self._dtype, self._precision = DTYPES[dtype]
        mesh = Mesh(np.asarray(self.devices), ("batch",))
        self._split = NamedSharding(mesh, PartitionSpec("batch"))
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        device = self.devices[0]
        chosen = choose_formulation(
            model.config,
            device.platform,
            self._dtype,
            name=formulation,
            exact=self._precision == "highest",
            # Which GPUs have.
            shared_memory=getattr(device, "shared_memory_per_block_optin", None),
            compute_capability=getattr(device, "compute_capability", None),
        )
        self.encoder_weights, encode = chosen.encoder(model.encoder)
        self.decoder_weights, decode = chosen.decoder(model.decoder)
        self.encoder_weights = place(self.encoder_weights, self._everywhere)
        self.decoder_weights = place(self.decoder_weights, self._everywhere)
        self.free_padding = chosen.free_padding
        options = dict(chosen.compiler_options) if chosen.compiler_options else None
        self._encode = jax.jit(
            self._each_device(mesh, functools.partial(self._encode_windows, encode)), compiler_options=options
        )
        self._decode = jax.jit(
            self._each_device(mesh, functools.partial(self._decode_windows, decode)), compiler_options=options
        )
        if model.transformers is not None:
            # One call per layer: only one array of the sequence is alive between calls, and layers of equal
            # structure share a program. A function for each structure, since a structure that is an argument
            # is hashed at every call, for half a millisecond.
            rotary = model.transformers.rotary_pos_emb
            split = [nnx.split((layer, rotary)) for layer in model.transformers.layers]
            functions = {
                structure: jax.jit(functools.partial(self._transformer_layer, structure))
                for structure, _ in split
            }
            self._layers = [functions[structure] for structure, _ in split]
            self.transformer_weights = place([weights for _, weights in split], self.devices[0])
            self._embed = model.transformers.embed

    @property
    def activation_bytes(self) -> int:
        """Of one value between the layers."""
        return jnp.dtype(self._dtype).itemsize

    def encode(
        self, audio: Float[np.ndarray, "B T C"], start: Int[np.ndarray, " B"], stop: Int[np.ndarray, " B"]
    ) -> tuple[Float[Array, "B N D"], Float[Array, "B N D"]]:
        """Mean and standard deviation of every latent of the windows; T = N · downsampling_ratio."""
        return self._run(self._encode, self.encoder_weights, audio, start, stop)

    def decode(
        self, latents: Float[np.ndarray, "B N D"], start: Int[np.ndarray, " B"], stop: Int[np.ndarray, " B"]
    ) -> Float[Array, "B T C"]:
        """The decoder without the transformer; T = `samples_of` N latents."""
        return self._run(self._decode, self.decoder_weights, latents, start, stop)

    def transform(self, latents: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
        """Runs the transformer over all latents of one file; without one, returns the latents unchanged.

        Raises:
          UserError: the file has more latents than the model's `abs_pos_emb_max_length`.
        """
        transformer = self.config.transformer
        if transformer is None:
            return latents
        count = len(latents)
        size, block, rows = self._sequence(transformer, count)
        padded = np.zeros((1, rows, latents.shape[1]), np.float32)
        padded[0, :count] = latents
        del latents  # an hour of them is 40 MB, and so is each array of the sequence below
        if transformer.use_abs_pos_emb or transformer.use_sinusoidal_emb:
            padded[:, :size] = self._embed(jnp.asarray(padded[:, :size]))
        length = np.asarray([count], np.int32)
        with self._matmul_precision():
            values = jax.device_put(padded.reshape(-1, 1, block, padded.shape[-1]), self.devices[0])
            del padded
            for run, weights in zip(self._layers, self.transformer_weights, strict=True):
                values = run(weights, values, length)
                if rows > block:
                    values.block_until_ready()  # before the next call asks for memory
        return np.asarray(values).reshape(rows, -1)[:count]

    def lowered_encoder(self, count: int, size: int) -> jax.stages.Lowered:
        """What `encode` runs for `count` windows of `size` latents, before it is compiled."""
        samples = size * self.config.downsampling_ratio
        return self._lowered(self._encode, self.encoder_weights, count, samples, self.config.io_channels)

    def lowered_decoder(self, count: int, size: int) -> jax.stages.Lowered:
        """What `decode` runs for `count` windows of `size` latents, before it is compiled."""
        return self._lowered(self._decode, self.decoder_weights, count, size, self.config.latent_dim)

    def lowered_layer(self, layer: int, latents: int) -> jax.stages.Lowered:
        """What `transform` runs in one layer of the transformer for a file of so many latents."""
        assert self.config.transformer is not None
        _, block, rows = self._sequence(self.config.transformer, latents)
        where = SingleDeviceSharding(self.devices[0])
        shape = (rows // block, 1, block, self.config.latent_dim)
        values = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=where)
        length = np.zeros(1, np.int32)
        with self._matmul_precision():
            return self._layers[layer].lower(self.transformer_weights[layer], values, length)

    def sequence_length(self, latents: int) -> int:
        """The latents that `transform` computes for a file of so many; files of one length share programs."""
        assert self.config.transformer is not None
        return self._sequence(self.config.transformer, latents)[2]

    def _lowered(self, function, weights, count, steps, channels):
        def batch(shape, dtype):
            return jax.ShapeDtypeStruct((count, *shape), dtype, sharding=self._split)

        start, stop = batch((), jnp.int32), batch((), jnp.int32)
        with self._matmul_precision():
            return function.lower(weights, batch((steps, channels), jnp.float32), start, stop)

    @staticmethod
    def _sequence(transformer: TransformerConfig, count: int) -> tuple[int, int, int]:
        """For so many latents of a file: the bucket's length, the rows of a block and of all blocks."""
        size = _bucket(count)
        if transformer.use_abs_pos_emb:
            if count > transformer.abs_pos_emb_max_length:
                raise UserError(
                    f"{count} latents exceed this model's abs_pos_emb_max_length "
                    f"{transformer.abs_pos_emb_max_length}: cut the audio into shorter files"
                )
            size = min(size, transformer.abs_pos_emb_max_length)
        block = min(size, BLOCK)
        return size, block, -(-size // block) * block

    @staticmethod
    def _each_device(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
        """Runs a function of weights and a batch on each device's part; devices exchange nothing."""
        batch = PartitionSpec("batch")
        return jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(PartitionSpec(), batch, batch, batch),
            out_specs=batch,
            check_vma=False,  # else each zero that starts a loop must be declared as varying
        )

    def _run(self, function, weights, values, start, stop):
        batch = jax.device_put((values, start, stop), self._split)
        with self._matmul_precision():
            return function(weights, *batch)

    def _encode_windows(self, encode, weights, audio, start, stop):
        output = encode(weights, audio.astype(self._dtype), Extent(start, stop)).astype(jnp.float32)
        posterior = Posterior.from_encoder(output, std_offset=self.config.std_offset)
        return posterior.mean, posterior.std

    def _decode_windows(self, decode, weights, latents, start, stop):
        return decode(weights, latents.astype(self._dtype), Extent(start, stop)).astype(jnp.float32)

    def _transformer_layer(self, structure, weights, values, length):
        """One layer over a sequence in blocks; a single block is computed at once."""
        layer, rotary = nnx.merge(structure, weights)
        values = values.astype(self._dtype)
        if len(values) == 1:
            values = layer(values[0], rotary, length)[None]
        else:
            values = layer.in_blocks(values, rotary, length)
        return values.astype(jnp.float32)

    def _matmul_precision(self) -> contextlib.AbstractContextManager:
        if self._precision is None:
            return contextlib.nullcontext()
        return jax.default_matmul_precision(self._precision)


def _bucket(count: int) -> int:
    """The shortest bucket that holds `count` latents; buckets are few, so that files share programs.

    Buckets are 64, 256 and 1024 (one block of attention), then powers of two: blocks beyond the end of a file
    are skipped and cost only memory. Above six minutes, where memory matters, an octave has four buckets.
    """
    for size in (64, 256, BLOCK):
        if count <= size:
            return size
    octave = 1 << ((count - 1).bit_length() - 1)
    step = octave if octave < 16 * BLOCK else octave // 4
    return octave + -(-(count - octave) // step) * step
