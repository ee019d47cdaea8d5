"""One training step as a pure function: generator and discriminator updates, averaging, the check for NaN."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from earvae_jax.model.bottleneck import Posterior
from earvae_jax.model.lengths import latents_of
from earvae_jax.model.vae import EarVAE
from earvae_jax.system.machine import GPUS
from earvae_jax.train.config import AdversarialConfig, TrainConfig
from earvae_jax.train.losses.adversarial import Terms, adversarial_gradients, weighted
from earvae_jax.train.losses.discriminator import Discriminator
from earvae_jax.train.losses.objective import reconstruction_objective
from earvae_jax.train.step.initialization import start_as_transform
from earvae_jax.train.step.optimizer import build_optimizer, discriminator_schedule, judge_rate
from earvae_jax.train.step.schedules import adversarial_share, learning_rate
from earvae_jax.train.step.stacks import Parameters, Stacked, Stacks, norm_of, split_module
from earvae_jax.train.step.state import TrainState, with_parameters
from earvae_jax.train.step.state_split import StateSplit


class Trainer:
    """The pure functions of a training run. It splits the modules once and keeps their structure.

    The devices of a `mesh`, of one axis, compute the gradients of a step together, each for its part of the
    batch. With `shard_state` each of them keeps and updates its part of the stacks.

    Attributes:
      stacks, judge_stacks: the stacks of the model's parameters and of the discriminator's.
      split: how the state's arrays lie on the devices.
    """

    def __init__(self, config: TrainConfig, mesh: Mesh | None = None):
        self.config = config
        self.mesh = mesh
        self.model_config = config.model_config
        # Without `rngs` a module holds only shapes; `eval_shape` of building it takes many times as long.
        model = EarVAE(self.model_config, rngs=None)
        self._model, *_ = split_module(model)
        self.split = StateSplit(mesh, parted=config.shard_state)
        platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
        self._for_gpu = platform in GPUS
        self.stacks = Stacks(model, for_gpu=self._for_gpu)
        self._optimizer = build_optimizer(config.optimizer, config.steps)
        self._adversarial = config.adversarial
        self._all_stacks: tuple[Stacks, Stacks | None] = (self.stacks, None)
        if self._adversarial is not None:
            judge = self._build_discriminator(self._adversarial, None)
            self.judge_stacks = Stacks(judge, for_gpu=self._for_gpu)
            self._all_stacks = (self.stacks, self.judge_stacks)
            self._discriminator_optimizer = build_optimizer(*discriminator_schedule(config))

    def _build_model(self) -> EarVAE:
        model = EarVAE(self.model_config, rngs=nnx.Rngs(jax.random.key(self.config.seed)))
        if self.config.initialization == "block_transform":
            start_as_transform(model)
        return model

    def _build_discriminator(self, config: AdversarialConfig, rngs: nnx.Rngs | None) -> Discriminator:
        return Discriminator(config.discriminator, self.model_config.io_channels, rngs=rngs)

    def initial_state(self, model: EarVAE | None = None) -> TrainState:
        """The state before the first step; with a `model` it starts from that instead of random weights."""
        _, generator, constants = split_module(self._build_model() if model is None else model)
        key = jax.random.fold_in(jax.random.key(self.config.seed), 1)
        # One program: one for each leaf would leave hundreds in memory.
        return jax.jit(self._state)(generator, constants, self._discriminator_parameters(nnx.Rngs(key)))

    def state_shapes(self) -> TrainState:
        """The shapes and types of the state."""
        _, generator, constants = split_module(EarVAE(self.model_config, rngs=None))
        return jax.eval_shape(self._state, generator, constants, self._discriminator_parameters(None))

    def _discriminator_parameters(self, rngs: nnx.Rngs | None) -> Parameters | None:
        if self._adversarial is None:
            return None
        return split_module(self._build_discriminator(self._adversarial, rngs))[1]

    def _state(
        self, generator: Parameters, constants: Parameters, discriminator: Parameters | None
    ) -> TrainState:
        zero = jnp.zeros((), jnp.int32)
        stacked = self.stacks.stack(generator)
        judge = None if discriminator is None else self.judge_stacks.stack(discriminator)
        state = TrainState(
            step=zero,
            skipped=zero,
            skipped_in_a_row=zero,
            generator=stacked,
            constants=constants,
            average=stacked,
            optimizer=self._optimizer.init(stacked),
            discriminator=judge,
            discriminator_optimizer=None if judge is None else self._discriminator_optimizer.init(judge),
        )
        # The step gives away the buffers of its input, so each leaf needs its own.
        return jax.tree.map(jnp.copy, state)

    def stacked(self, state: TrainState) -> TrainState:
        """A state whose parameters and moments are trees, as `unstacked` gives it, as a step takes it."""
        return with_parameters(state, Stacks.stack_all, *self._all_stacks)

    def unstacked(self, state: TrainState) -> TrainState:
        """The state with trees of parameters and moments, by the names of the modules: what is saved."""
        return with_parameters(state, Stacks.unstack_all, *self._all_stacks)

    def model(self, state: TrainState, *, averaged: bool = True) -> EarVAE:
        """The model of a state as a module, by default with the averaged weights."""
        # One program, which costs less than one for each shape.
        parameters = jax.jit(self.stacks.unstack)(state.average if averaged else state.generator)
        return nnx.merge(self._model, parameters, state.constants)

    def judge(self, parameters: Stacked) -> Discriminator:
        """The discriminator with these parameters, which computes with them."""
        # Cast by the layers, gradients of recordings and reconstructions are added in float32; on a GPU they
        # are one gradient, and one cast is fewer kernels.
        dtype = self.config.compute_dtype if self._for_gpu else "float32"
        return self.judge_stacks.module(parameters, {}, jnp.dtype(dtype))

    def reconstruct(
        self,
        generator: Stacked,
        constants: Parameters,
        audio: Float[Array, "B T C"],
        noise: Float[Array, "B N D"] | None,
    ) -> tuple[Float[Array, "B T C"], Float[Array, ""]]:
        """Reconstruction and KL divergence, in `compute_dtype`; without noise it decodes the mean."""
        dtype = jnp.dtype(self.config.compute_dtype)
        model = self.stacks.module(generator, constants, dtype)

        def encode(audio):
            posterior = model.encode(audio.astype(dtype))
            return posterior.mean.astype(jnp.float32), posterior.scale.astype(jnp.float32)

        def decode(latents):
            return model.decode(latents.astype(dtype)).astype(jnp.float32)

        if self.config.rematerialize:
            encode, decode = (jax.checkpoint(f, policy=_save_convolutions) for f in (encode, decode))
        mean, scale = encode(audio)
        posterior = Posterior(mean, scale, model.config.std_offset)
        latents = posterior.mean if noise is None else posterior.mean + posterior.std * noise
        return decode(latents), posterior.kl()

    def generator_loss(
        self, prediction: Float[Array, "B T C"], kl: Float[Array, ""], audio: Float[Array, "B T C"]
    ) -> tuple[Float[Array, ""], Terms]:
        """The generator's objective without adversarial terms, and its terms."""
        total, terms = reconstruction_objective(
            prediction, audio, sample_rate=self.config.sample_rate, config=self.config.objective
        )
        total += self.config.kl_weight * kl
        return total, {**terms, "kl": kl, "loss": total}

    def gradients(
        self,
        state: TrainState,
        audio: Float[Array, "B T C"],
        noise: Float[Array, "B N D"],
        *,
        adversarial: bool,
    ) -> tuple[Stacked, Stacked | None, Terms]:
        """Gradients of generator and discriminator at the state's parameters, and all terms."""
        (prediction, kl), pull_to_generator = jax.vjp(
            lambda generator: self.reconstruct(generator, state.constants, audio, noise), state.generator
        )
        (of_prediction, of_kl), terms = jax.grad(self.generator_loss, (0, 1), has_aux=True)(
            prediction, kl, audio
        )
        discriminator_gradient = None
        if adversarial:
            assert self._adversarial is not None  # `adversarial` follows from its start_step
            of_audio, discriminator_gradient, judged = adversarial_gradients(
                self.judge,
                state.discriminator,
                audio,
                prediction,
                config=self._adversarial,
                dtype=jnp.dtype(self.config.compute_dtype),
            )
            share = adversarial_share(state.step, self._adversarial)
            of_prediction += share * of_audio
            terms |= judged
            terms["loss"] += share * weighted(judged, self._adversarial)
        (generator_gradient,) = pull_to_generator((of_prediction, of_kl))
        return generator_gradient, discriminator_gradient, terms

    def step(
        self, state: TrainState, audio: Float[Array, "B T C"], *, adversarial: bool
    ) -> tuple[TrainState, Terms]:
        """One optimizer step on a batch, and its terms; both gradients come from one reconstruction.

        A step with a non-finite loss or gradient changes nothing but the counters.
        """
        noise = self.noise(state.step, audio.shape[0])
        generator_gradient, discriminator_gradient, terms = self._over_devices(
            state, audio, noise, adversarial
        )
        norms = self.stacks.norms(generator_gradient)
        whole = norm_of(norms)
        updates, optimizer = self._optimizer.update(
            generator_gradient, state.optimizer, state.generator, norm=whole
        )
        generator = optax.apply_updates(state.generator, updates)
        # Early on the average covers about a tenth of the steps done, and forgets the random start.
        decay = jnp.minimum(self.config.ema_decay, (1 + state.step) / (10 + state.step))
        updated = dataclasses.replace(
            state,
            generator=generator,
            optimizer=optimizer,
            average=jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.average, generator),
        )
        finite = jnp.isfinite(whole) & jnp.isfinite(terms["loss"])
        if adversarial:
            discriminator_norm = norm_of(self.judge_stacks.norms(discriminator_gradient))
            finite &= jnp.isfinite(discriminator_norm) & jnp.isfinite(terms["discriminator"])
            updates, optimizer = self._discriminator_optimizer.update(
                discriminator_gradient,
                state.discriminator_optimizer,
                state.discriminator,
                norm=discriminator_norm,
            )
            discriminator = optax.apply_updates(state.discriminator, updates)
            updated = dataclasses.replace(
                updated, discriminator=discriminator, discriminator_optimizer=optimizer
            )
            terms["discriminator_gradient_norm"] = discriminator_norm
            assert self._adversarial is not None
            terms["adversarial_share"] = adversarial_share(state.step, self._adversarial)
            terms["discriminator_learning_rate"] = judge_rate(state.discriminator_optimizer, self.config)
        terms |= {"gradient_norm": whole, **{f"gradient_norm/{part}": n for part, n in norms.items()}}
        terms["learning_rate"] = learning_rate(
            state.step - state.skipped, self.config.optimizer, self.config.steps
        )
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
        missed = jnp.where(finite, 0, 1)
        in_a_row = terms["skipped_in_a_row"] = (state.skipped_in_a_row + 1) * missed
        counters = {"step": state.step + 1, "skipped": state.skipped + missed, "skipped_in_a_row": in_a_row}
        return dataclasses.replace(kept, **counters), terms

    def noise(self, step: Int[Array, ""], batch_size: int) -> Float[Array, "B N D"]:
        """The bottleneck's noise of a step, the same however the batch is split."""
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.config.seed), 2), step)
        latents = latents_of(self.config.data.crop_samples, self.model_config.encoder.strides)
        return jax.random.normal(key, (batch_size, latents, self.model_config.latent_dim))

    def _over_devices(self, state, audio, noise, adversarial):
        """Gradients and terms averaged over the devices."""
        if self.mesh is None:
            return self._accumulate(state, audio, noise, adversarial)
        (axis,) = self.mesh.axis_names
        batch = PartitionSpec(axis)

        def part(state, audio, noise):
            *gradients, terms = self._accumulate(state, audio, noise, adversarial)
            return *jax.tree.map(self.split.mean, gradients), jax.lax.pmean(terms, axis)

        # What the gradients do not need would be gathered with the rest.
        state = dataclasses.replace(state, average=None, optimizer=None, discriminator_optimizer=None)
        judge = state.discriminator if adversarial else None
        specs = [self.split.spec(part) for part in (state.generator, judge)]
        # Left to itself, XLA gathers the whole batch for every Fourier transform. With `check_vma` the
        # gradients of parameters, which do not vary over devices, would be summed already.
        return jax.shard_map(
            part,
            mesh=self.mesh,
            in_specs=(PartitionSpec(), batch, batch),
            out_specs=(*specs, PartitionSpec()),
            check_vma=False,
        )(state, audio, noise)

    def _accumulate(self, state, audio, noise, adversarial):
        """Gradients and terms averaged over `accumulate` parts of the batch, one after the other."""
        parts = self.config.accumulate
        if parts == 1:
            return self.gradients(state, audio, noise, adversarial=adversarial)
        batches = [x.reshape(parts, -1, *x.shape[1:]) for x in (audio, noise)]

        def add(total, part):
            return jax.tree.map(jnp.add, total, self.gradients(state, *part, adversarial=adversarial)), None

        shapes = jax.eval_shape(
            lambda: self.gradients(state, *(x[0] for x in batches), adversarial=adversarial)
        )
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        total, _ = jax.lax.scan(add, zeros, batches)
        return jax.tree.map(lambda leaf: leaf / parts, total)


def _save_convolutions(primitive: Any, *_: Any, **__: Any) -> bool:
    """Keeps the outputs of convolutions; everything between them is cheap to compute again."""
    return primitive.name == "conv_general_dilated"
