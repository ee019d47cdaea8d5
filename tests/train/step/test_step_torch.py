"""One training step is torch's: every loss term, every gradient, every parameter afterwards."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
import small_training
from tolerances import LOSS_VALUE, STEP_GRADIENT_COSINE, STEP_PARAMETERS

from earvae_jax.parameters import named_arrays
from earvae_jax.train.step.step import Trainer

# Large against rounding: where a gradient is rounding alone, the update must be small and not turn its sign.
EPSILON = 0.1


def test_one_step_is_torchs():
    torch = pytest.importorskip("torch")
    from earvae_jax.convert import keys, to_torch
    from earvae_jax.convert.torch_port import model as torch_model
    from earvae_jax.train.studies import torch_step

    optimizer = {"learning_rate": 1e-3, "warmup": 0.0, "epsilon": EPSILON, "betas": [0.8, 0.99]}
    objective = {"n_ffts": [256, 64], "phase_n_ffts": [256], "waveform": 1.0, "log_waveform": 0.3}
    config = small_training.config(strides=(2, 4), transformer=True, optimizer=optimizer, objective=objective)
    config = dataclasses.replace(
        config, adversarial=dataclasses.replace(config.adversarial, optimizer=config.optimizer)
    )
    trainer = Trainer(config)
    state = trainer.initial_state(small_models.model(config.model_config))
    audio, noise = small_training.music(), np.asarray(trainer.noise(state.step, 4))

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
    # The gradients' program is the one above; around it optimizations would only take long.
    step = jax.jit(
        functools.partial(trainer.step, adversarial=True),
        compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},
    )
    after, _ = step(state, audio)
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
        for path, leaf in jax.tree.leaves_with_path(trainer.judge_stacks.unstack(parameters))
    }
