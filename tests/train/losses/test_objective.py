"""The training objective is the sum of the losses it names, and torch's."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import LOSS_VALUE

from earvae_jax.errors import UserError
from earvae_jax.train import losses
from earvae_jax.train.config import ObjectiveConfig
from earvae_jax.train.losses.objective import reconstruction_objective
from earvae_jax.train.studies.loss_benchmark import objective_benchmark

pytestmark = pytest.mark.usefixtures("quick_compilation")

SMALL = ObjectiveConfig(
    n_ffts=(128, 64), phase_n_ffts=(256, 64), waveform=2.0, log_waveform=0.5, group_delay=7.0
)


@functools.partial(jax.jit, static_argnames="config")
def objective(prediction, target, config):
    return reconstruction_objective(prediction, target, sample_rate=44_100, config=config)


def pair(scale: float = 0.3):
    random = np.random.default_rng(0)
    target = scale * random.standard_normal((2, 640, 2)).astype(np.float32)
    return jnp.asarray(
        target + 0.2 * scale * random.standard_normal(target.shape).astype(np.float32)
    ), jnp.asarray(target)


@pytest.mark.parametrize("published", [False, True])
def test_objective_is_the_weighted_sum_of_its_losses(published):
    form = {"wrap": not published, "weighting": None if published else "magnitude"}
    config = dataclasses.replace(SMALL, **form)
    prediction, target = pair()
    total, terms = objective(prediction, target, config)
    x, y = losses.k_weight(prediction, 44_100), losses.k_weight(target, 44_100)
    level = 1 if published else jnp.sqrt(jnp.mean(y**2, axis=(1, 2)))[:, None, None]
    expected = {"waveform": losses.waveform_loss(prediction, target)}
    expected["log_waveform"] = losses.log_waveform_loss(prediction, target)
    for name in ("spectral_convergence", "log_magnitude"):
        switches = {"spectral_convergence": False, "log_magnitude": False, name: True}
        expected[name] = losses.multi_resolution_stft_loss(x, y, n_ffts=(128, 64), center=False, **switches)

    def phase(loss, **options):
        loss = jax.jit(functools.partial(loss, **options), static_argnames=("n_fft", "hop_length"))
        items = (
            [(x[i : i + 1] / level[i], y[i : i + 1] / level[i]) for i in range(2)]
            if not published
            else [(x, y)]
        )
        values = [loss(*item, n_fft=n, hop_length=n // 4) for n in (256, 64) for item in items]
        return sum(values) / len(values)

    expected["correlation"] = phase(losses.correlation_loss, weighting=form["weighting"])
    expected["instantaneous_frequency"] = phase(losses.instantaneous_frequency_loss, **form)
    expected["group_delay"] = phase(losses.group_delay_loss, **form)
    assert set(terms) == set(expected)
    for name, value in expected.items():
        # Dividing by the level before or after the transform moves the threshold of silence a little.
        np.testing.assert_allclose(terms[name], value, rtol=1e-3, err_msg=name)
    weighted = sum(getattr(config, name) * terms[name] for name in terms)
    np.testing.assert_allclose(total, weighted, rtol=LOSS_VALUE)


def test_a_weight_of_zero_leaves_its_term_out():
    config = dataclasses.replace(
        SMALL, correlation=0.0, log_magnitude=0.0, waveform=0.0, log_waveform=0.0, k_weighting=False
    )
    _, terms = objective(*pair(), config)
    assert set(terms) == {"spectral_convergence", "instantaneous_frequency", "group_delay"}


def test_k_weighting_matters():
    plain, weighted = (
        objective(*pair(), dataclasses.replace(SMALL, k_weighting=k_weighting))[0]
        for k_weighting in (False, True)
    )
    assert abs(float(plain) - float(weighted)) > 1e-3


def test_quiet_and_loud_items_learn_phase_alike():
    loud, quiet = (objective(*pair(scale), SMALL)[1] for scale in (0.3, 0.01))
    for name in ("correlation", "instantaneous_frequency", "group_delay"):
        np.testing.assert_allclose(loud[name], quiet[name], rtol=1e-2)


def test_objective_is_finite_on_silence():
    config = dataclasses.replace(SMALL, n_ffts=(64,), phase_n_ffts=(64,))
    silence = jnp.zeros((1, 200, 2))
    for target in (silence, pair()[1][:1, :200]):
        value, gradient = jax.value_and_grad(lambda x, y=target: objective(x, y, config)[0])(silence)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_objective_is_torchs_and_the_benchmark_runs():
    pytest.importorskip("torch")
    result = objective_benchmark(repeats=1, shape=(1, 4096, 2))
    np.testing.assert_allclose(result["jax_value"], result["torch_value"], rtol=LOSS_VALUE)
    assert result["jax_seconds"] > 0
    assert result["torch_seconds"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_ffts": ()}, r"n_ffts is \[\]"),
        ({"phase_n_ffts": (2,)}, r"phase_n_ffts is \[2\]; expected .* at least 4"),
        ({"hop_fraction": 0}, "hop_fraction is 0"),
        ({"weighting": "loudness"}, 'weighting is "loudness"'),
        ({"group_delay": -1.0}, "group_delay is -1.0"),
    ],
)
def test_impossible_configurations_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ObjectiveConfig(**options)
