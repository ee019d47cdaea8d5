"""One training step: in parts, with bad numbers, and in other precisions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_training
from tolerances import ACCUMULATION, LOSS_VALUE, REMATERIALIZED

from earvae_jax.train.config import OptimizerConfig
from earvae_jax.train.step.schedules import adversarial_share, learning_rate, milestones
from earvae_jax.train.step.step import Trainer

pytestmark = pytest.mark.usefixtures("quick_compilation")


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


@pytest.fixture(scope="module")
def small():
    """A trainer, its first state and a batch."""
    trainer = Trainer(small_training.config())
    return trainer, trainer.initial_state(), small_training.music()


def test_parts_of_a_batch_add_up_to_the_batch(small):
    trainer, state, _ = small
    in_parts = Trainer(dataclasses.replace(trainer.config, accumulate=2))
    whole, split = state, state
    for step in range(5):
        batch = small_training.music(seed=step)
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


def test_the_discriminator_trains_alone_before_its_terms_reach_the_generator(small):
    trainer, state, audio = small
    adversarial = dataclasses.replace(trainer.config.adversarial, start_step=0, alone_steps=3, ramp_steps=2)
    warm = Trainer(dataclasses.replace(trainer.config, adversarial=adversarial))
    without, _ = compiled(trainer, False)(state, audio)
    alone, terms = compiled(warm, True)(state, audio)
    same(alone.generator, without.generator, 0)
    assert float(terms["adversarial_share"]) == 0
    rate = learning_rate(0, adversarial.optimizer, trainer.config.steps)
    assert float(terms["discriminator_learning_rate"]) == float(rate) > 0
    _, second = compiled(warm, True)(alone, audio)
    rate = learning_rate(1, adversarial.optimizer, trainer.config.steps)
    assert float(second["discriminator_learning_rate"]) == float(rate)
    assert not np.array_equal(*(jax.tree.leaves(s.discriminator)[0] for s in (state, alone)))
    later = dataclasses.replace(state, step=jnp.int32(3))
    with_terms, without = (
        leaves(compiled(one, judged)(later, audio)[0].generator)
        for one, judged in ((warm, True), (trainer, False))
    )
    assert any(not np.array_equal(with_terms[name], without[name]) for name in without)
    shares = [float(adversarial_share(step, adversarial)) for step in range(7)]
    assert shares == [0, 0, 0, 0.5, 1, 1, 1]


def test_the_gradients_norm_is_that_of_its_parts(small):
    trainer, state, audio = small
    _, terms = compiled(trainer, False)(state, audio)
    parts = [float(value) for name, value in terms.items() if name.startswith("gradient_norm/")]
    assert len(parts) >= 2
    assert float(terms["gradient_norm"]) == pytest.approx(np.linalg.norm(parts), rel=1e-5)
    gradient, _, _ = jax.jit(functools.partial(trainer.gradients, adversarial=False))(
        state, audio, trainer.noise(state.step, len(audio))
    )
    encoder = jax.tree.leaves(trainer.stacks.unstack(gradient)["encoder"])
    assert float(terms["gradient_norm/encoder"]) == pytest.approx(
        np.sqrt(sum(np.sum(np.square(leaf)) for leaf in encoder)), rel=1e-5
    )


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


def test_milestones_are_where_a_schedule_turns():
    config = small_training.config(steps=1000)
    adversarial = dataclasses.replace(
        config.adversarial,
        start_step=100,
        alone_steps=50,
        ramp_steps=100,
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup=0.0),
    )
    optimizer = OptimizerConfig(learning_rate=1e-3, warmup=0.9, cooldown_steps=200)
    found = dict(milestones(dataclasses.replace(config, optimizer=optimizer, adversarial=adversarial)))
    assert list(found) == [0, 44, 100, 150, 250, 800, 999]
    assert found[44]["learning_rate"] == pytest.approx(0.99e-3, rel=0.01)
    assert "discriminator_learning_rate" not in found[44] and found[100]["adversarial_share"] == 0
    assert found[250]["adversarial_share"] == 1 and found[999]["learning_rate"] < 1e-5


def test_clipping_scales_the_whole_gradient():
    from earvae_jax.train.step.optimizer import build_optimizer

    config = OptimizerConfig(learning_rate=1.0, clip_norm=1.0, warmup=0.0)
    gradient = {"a": jnp.full(4, 3.0), "b": jnp.full(9, -4.0)}
    clipped = jax.tree.map(lambda leaf: leaf / optax.tree.norm(gradient), gradient)
    free = dataclasses.replace(config, clip_norm=None)
    zeros = jax.tree.map(jnp.zeros_like, gradient)
    updates = []
    for chosen, given in ((config, gradient), (free, clipped)):
        optimizer = build_optimizer(chosen, 10)
        updates.append(optimizer.update(given, optimizer.init(zeros), zeros, norm=optax.tree.norm(given))[0])
    same(*updates, 1e-7)
