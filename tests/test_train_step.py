"""One training step: against torch, in parts, with bad numbers, and in other precisions."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_models
import small_training
from tolerances import (
    ACCUMULATION,
    LOSS_VALUE,
    REMATERIALIZED,
    STEP_GRADIENT_COSINE,
    STEP_PARAMETERS,
)

from earvae_jax.parameters import named_arrays
from earvae_jax.train.config import OptimizerConfig
from earvae_jax.train.optimizer import learning_rate
from earvae_jax.train.step import Trainer

# Large against rounding: where a gradient is rounding alone, the update must be small and not turn its sign.
EPSILON = 0.1


def music(batch: int = 4, seed: int = 0) -> np.ndarray:
    """Tones in noise: every bin has energy, as the comparison of phases needs."""
    random = np.random.default_rng(seed)
    time = np.arange(small_training.CROP) / small_models.SAMPLE_RATE
    tones = [np.sin(2 * np.pi * random.uniform(50, 2000) * time + phase) for phase in random.uniform(0, 6, 6)]
    left, right = (sum(random.uniform(0, 0.1) * tone for tone in tones) for _ in range(2))
    audio = np.stack([left, right], axis=-1) * random.uniform(0.5, 1, (batch, 1, 1))
    return (audio + 0.02 * random.standard_normal(audio.shape)).astype(np.float32)


@functools.cache
def compiled(trainer: Trainer, adversarial: bool):
    return jax.jit(functools.partial(trainer.step, adversarial=adversarial))


def leaves(tree) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def same(first, second, tolerance: float) -> None:
    first, second = leaves(first), leaves(second)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=0, atol=tolerance, err_msg=name)


def test_one_step_is_torchs():
    torch = pytest.importorskip("torch")
    from earvae_jax.convert import keys, to_torch, torch_model
    from earvae_jax.train import torch_step

    optimizer = {"learning_rate": 1e-3, "warmup": 0.0, "epsilon": EPSILON, "betas": [0.8, 0.99]}
    config = small_training.config(transformer=True, optimizer=optimizer)
    config = dataclasses.replace(
        config, adversarial=dataclasses.replace(config.adversarial, optimizer=config.optimizer)
    )
    trainer = Trainer(config)
    state = trainer.initial_state(small_models.model(config.model_config))
    audio, noise = music(), np.asarray(trainer.noise(state.step, 4))

    judge_names = {
        name: np.asarray(leaf) for name, leaf in _judge_arrays(trainer, state.discriminator).items()
    }
    generator = torch_model.build(config.model_config, to_torch.state_dict(trainer.model(state)))
    judges = torch_step.discriminator(config.adversarial.discriminator, 2, judge_names)
    batch = [torch.from_numpy(x.swapaxes(1, 2).copy()) for x in (audio, noise)]
    fast_generator, fast_judges = copy.deepcopy(generator), copy.deepcopy(judges)
    terms = torch_step.TorchStep(config, generator, judges).backward(*batch)

    # Every loss term and every gradient.
    gradients = jax.jit(functools.partial(trainer.gradients, adversarial=True))
    ours, judged, our_terms = gradients(state, audio, noise)
    assert our_terms.keys() == terms.keys()
    for name, value in terms.items():
        assert float(our_terms[name]) == pytest.approx(value.item(), rel=LOSS_VALUE), name

    def generator_tensors(parameters):
        model = trainer.model(dataclasses.replace(state, generator=parameters), averaged=False)
        return keys.to_tensors(config.model_config, named_arrays(model))

    def judge_tensors(parameters):
        arrays = _judge_arrays(trainer, parameters)
        return {name: torch_step.to_torch(name, array) for name, array in arrays.items()}

    sides = (
        (dict(generator.named_parameters()), generator_tensors, ours, state.generator),
        (torch_step.named_parameters(judges), judge_tensors, judged, state.discriminator),
    )
    for parameters, tensors, gradient, _ in sides:
        actual = tensors(gradient)
        for name, parameter in parameters.items():
            expected = parameter.grad.numpy().ravel()
            cosine = np.dot(expected, actual[name].ravel()) / (
                np.linalg.norm(expected) * np.linalg.norm(actual[name])
            )
            assert cosine >= STEP_GRADIENT_COSINE, f"{name}: {cosine:.6f}"

    # The parameters after plain gradient descent, then after the step that training takes.
    rate = 1e-4
    for parameters, tensors, gradient, start in sides:
        actual = tensors(jax.tree.map(lambda p, g: p - rate * g, start, gradient))
        for name, parameter in parameters.items():
            expected = (parameter - rate * parameter.grad).detach().numpy()
            np.testing.assert_allclose(actual[name], expected, rtol=0, atol=STEP_PARAMETERS, err_msg=name)
    adamw = functools.partial(
        torch.optim.AdamW,
        lr=optimizer["learning_rate"],
        betas=optimizer["betas"],
        eps=EPSILON,
        weight_decay=config.optimizer.weight_decay,
    )
    for module in (generator, judges):
        adamw(module.parameters()).step()
    after, _ = compiled(trainer, True)(state, audio)
    for (parameters, tensors, _, _), new in zip(sides, (after.generator, after.discriminator), strict=True):
        actual = tensors(new)
        moved = 0.0
        for name, parameter in parameters.items():
            expected = parameter.detach().numpy()
            np.testing.assert_allclose(actual[name], expected, rtol=0, atol=STEP_PARAMETERS, err_msg=name)
        for before, now in zip(
            jax.tree.leaves(state.generator), jax.tree.leaves(after.generator), strict=True
        ):
            moved = max(moved, float(jnp.abs(before - now).max()))
        assert moved > 100 * STEP_PARAMETERS, "the step moved nothing that could be compared"

    # The step that the benchmark times is the same step.
    optimizers = [adamw(module.parameters()) for module in (fast_generator, fast_judges)]
    torch_step.TorchStep(config, fast_generator, fast_judges).update(*batch, *optimizers)
    for fast, reference in ((fast_generator, generator), (fast_judges, judges)):
        for (name, actual), expected in zip(fast.named_parameters(), reference.parameters(), strict=True):
            np.testing.assert_allclose(
                actual.detach(), expected.detach(), rtol=0, atol=STEP_PARAMETERS, err_msg=name
            )


def _judge_arrays(trainer: Trainer, parameters) -> dict[str, np.ndarray]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(parameters)
    }


@pytest.fixture(scope="module")
def small():
    """A trainer, its first state and a batch."""
    trainer = Trainer(small_training.config())
    return trainer, trainer.initial_state(), music()


def test_parts_of_a_batch_add_up_to_the_batch(small):
    trainer, state, _ = small
    in_parts = Trainer(dataclasses.replace(trainer.config, accumulate=2))
    whole, split = state, state
    for step in range(5):
        batch = music(seed=step)
        whole, terms = compiled(trainer, True)(whole, batch)
        split, split_terms = compiled(in_parts, True)(split, batch)
        assert float(terms["loss"]) == pytest.approx(float(split_terms["loss"]), rel=LOSS_VALUE)
    same(whole.generator, split.generator, ACCUMULATION)
    same(whole.discriminator, split.discriminator, ACCUMULATION)


def test_the_discriminator_waits_until_its_start(small):
    trainer, state, audio = small
    warming, terms = compiled(trainer, False)(state, audio)
    assert "adversarial" not in terms
    same(warming.discriminator, state.discriminator, 0)
    training, terms = compiled(trainer, True)(state, audio)
    assert {"adversarial", "feature_matching", "discriminator"} <= terms.keys()
    assert not np.array_equal(*(jax.tree.leaves(s.discriminator)[0] for s in (state, training)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_that_is_not_finite_changes_nothing_but_the_counters(small, bad):
    trainer, state, audio = small
    state, _ = compiled(trainer, True)(state, audio)
    broken = audio.copy()
    broken[1, 5, 0] = bad
    after, terms = compiled(trainer, True)(state, broken)
    assert (int(after.step), int(after.skipped), int(after.skipped_in_a_row)) == (2, 1, 1)
    assert int(terms["skipped_in_a_row"]) == 1
    counters = {"step": 0, "skipped": 0, "skipped_in_a_row": 0}
    same(dataclasses.replace(after, **counters), dataclasses.replace(state, **counters), 0)
    again, _ = compiled(trainer, True)(after, broken)
    assert int(again.skipped_in_a_row) == 2
    good, _ = compiled(trainer, True)(again, audio)
    assert (int(good.skipped), int(good.skipped_in_a_row)) == (2, 0)
    assert not np.array_equal(*(jax.tree.leaves(s.generator)[0] for s in (again, good)))


def test_the_average_follows_the_weights(small):
    trainer, state, audio = small
    after, _ = compiled(trainer, True)(state, audio)
    decay = min(trainer.config.ema_decay, 1 / 10)
    expected = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.average, after.generator)
    same(after.average, expected, 1e-7)


def test_recomputed_activations_give_the_same_step(small):
    trainer, state, audio = small
    other = Trainer(dataclasses.replace(trainer.config, rematerialize=True))
    first, second = (compiled(t, True)(state, audio)[0] for t in (trainer, other))
    same(first.generator, second.generator, REMATERIALIZED)


def test_bfloat16_keeps_parameters_and_losses_in_float32(small):
    trainer, state, audio = small
    other = Trainer(dataclasses.replace(trainer.config, compute_dtype="bfloat16"))
    exact, rough = (compiled(t, True)(state, audio) for t in (trainer, other))
    assert {leaf.dtype for leaf in jax.tree.leaves(rough[0].generator)} == {jnp.dtype("float32")}
    assert all(value.dtype in (jnp.float32, jnp.int32) for value in rough[1].values())
    assert float(rough[1]["loss"]) == pytest.approx(float(exact[1]["loss"]), rel=0.05)


def test_noise_depends_on_the_step_and_the_seed_alone(small):
    trainer, _, _ = small
    first = trainer.noise(jnp.int32(3), 4)
    np.testing.assert_array_equal(first, trainer.noise(jnp.int32(3), 4))
    assert not np.array_equal(first, trainer.noise(jnp.int32(4), 4))
    other = Trainer(dataclasses.replace(trainer.config, seed=1))
    assert not np.array_equal(first, other.noise(jnp.int32(3), 4))
    assert first.shape == (4, small_training.CROP // 8, 4)
    assert abs(np.std(first) - 1) < 0.05


def test_learning_rate_is_the_published_schedule():
    config = OptimizerConfig(learning_rate=2.0, warmup=0.999, decay_steps=200_000)
    for step in (0, 10, 5000, 200_000, 10**6):
        expected = (1 - 0.999 ** (step + 1)) * 2.0 * (1 + step / 200_000) ** -0.5
        assert float(learning_rate(step, config, 10**7)) == pytest.approx(expected, rel=1e-4)
    cooled = dataclasses.replace(config, cooldown_steps=100)
    assert float(learning_rate(900, cooled, 1000)) == pytest.approx(float(learning_rate(900, config, 1000)))
    assert float(learning_rate(950, cooled, 1000)) == pytest.approx(
        float(learning_rate(950, config, 1000)) / 2
    )
    assert float(learning_rate(1000, cooled, 1000)) == 0


def test_clipping_scales_the_whole_gradient():
    from earvae_jax.train.optimizer import build_optimizer

    config = OptimizerConfig(learning_rate=1.0, clip_norm=1.0, warmup=0.0)
    gradient = {"a": jnp.full(4, 3.0), "b": jnp.full(9, -4.0)}
    clipped = jax.tree.map(lambda leaf: leaf / optax.tree.norm(gradient), gradient)
    free = dataclasses.replace(config, clip_norm=None)
    zeros = jax.tree.map(jnp.zeros_like, gradient)
    updates = []
    for chosen, given in ((config, gradient), (free, clipped)):
        optimizer = build_optimizer(chosen, 10)
        updates.append(optimizer.update(given, optimizer.init(zeros), zeros)[0])
    same(*updates, 1e-7)
