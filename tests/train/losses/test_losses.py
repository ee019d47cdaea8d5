"""Losses against recordings of the published code and torch, at their bounds and on their worst inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import LOSS_GRADIENT_COSINE, LOSS_VALUE, UNWEIGHTED_PHASE_VALUE

from earvae_jax.signal.spectral import stft
from earvae_jax.train import losses
from earvae_jax.train.losses.spectrum_terms import window_overlap

pytestmark = pytest.mark.usefixtures("quick_compilation")

SAMPLE_RATE = 48_000
PHASE_LOSSES = {
    "group_delay": losses.group_delay_loss,
    "instantaneous_frequency": losses.instantaneous_frequency_loss,
    "correlation": losses.correlation_loss,
}
PUBLISHED = {
    "group_delay": {"wrap": False, "weighting": None},
    "instantaneous_frequency": {"wrap": False, "weighting": None},
    "correlation": {"weighting": None},
}


def cosine(a, b) -> float:
    a, b = np.asarray(a).ravel(), np.asarray(b).ravel()
    return float(np.vdot(b, a).real / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.fixture
def recorded(golden):
    return np.load(golden / "losses" / "golden.npz")


@pytest.fixture
def pair(recorded):
    return tuple(jnp.asarray(recorded[name].swapaxes(1, 2)) for name in ("pred", "target"))


@pytest.mark.parametrize("name", PHASE_LOSSES)
@pytest.mark.parametrize("n_fft", [2048, 512])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "kweighted"])
def test_published_form_gives_the_recorded_value_and_gradient(recorded, name, n_fft, weighted):
    """From the recorded filtered signals, the gradient carried back through our filter.

    Whole gradients of the derivative terms are chance in silent bins (torch repeats its own to a cosine of
    0.5), so those are compared in the bins of the prediction that hold energy.
    """
    suffix, case = ("_kweighted", "kweighted") if weighted else ("", "plain")
    prediction, target = (jnp.asarray(recorded[x + suffix].swapaxes(1, 2)) for x in ("pred", "target"))

    def loss(x):
        return PHASE_LOSSES[name](x, target, n_fft=n_fft, hop_length=n_fft // 4, **PUBLISHED[name])

    value, gradient = jax.jit(jax.value_and_grad(loss))(prediction)
    if weighted:
        gradient = losses.k_weight(gradient, SAMPLE_RATE)
    expected = recorded[f"{case}/{n_fft}/{name}/value"]
    expected_gradient = recorded[f"{case}/{n_fft}/{name}/grad"].swapaxes(1, 2)
    if name == "correlation":
        np.testing.assert_allclose(value, expected, rtol=LOSS_VALUE)
        assert cosine(gradient, expected_gradient) >= LOSS_GRADIENT_COSINE
        return
    np.testing.assert_allclose(value, expected, rtol=UNWEIGHTED_PHASE_VALUE)
    spectra = [stft(x, n_fft=n_fft, hop_length=n_fft // 4) for x in (prediction, gradient, expected_gradient)]
    energetic = np.abs(spectra[0]) > 1e-2
    assert energetic.mean() > 0.2
    assert cosine(spectra[1][energetic], spectra[2][energetic]) >= LOSS_GRADIENT_COSINE


def torch_phase_loss(name, prediction, target, n_fft, *, wrap, magnitude):
    """The three phase losses in torch, in the forms that `wrap` and `magnitude` name; `[B, C, T]`."""
    import torch

    window, hop = torch.hann_window(n_fft), n_fft // 4
    samples = prediction.numel()
    p, t = (
        torch.stft(x.flatten(0, 1), n_fft, hop, window=window, center=False, return_complex=True)
        for x in (prediction, target)
    )
    weights = torch.minimum(p.abs(), t.abs()).detach()
    if name == "correlation":
        values = 1 - (p * t.conj()).real / (p.abs() * t.abs() + (0 if magnitude else 1e-8))
    else:
        axis = 1 if name == "group_delay" else 2
        # The published code takes its angles to [−π, π) first.
        phases = [torch.remainder(torch.angle(x) + torch.pi, 2 * torch.pi) - torch.pi for x in (p, t)]
        values = torch.diff(phases[0], dim=axis) - torch.diff(phases[1], dim=axis)
        if wrap:
            values = torch.atan2(values.sin(), values.cos())
        values = values.abs()
        count = weights.shape[axis]
        weights = torch.minimum(weights.narrow(axis, 1, count - 1), weights.narrow(axis, 0, count - 1))
    if magnitude:
        weights = weights**2 / (weights + 1e-5 * n_fft / 4)
        return (weights * values).sum() / (2 * window_overlap(n_fft, hop) * p.shape[1] * samples)
    return values.mean()


@pytest.mark.parametrize("name", PHASE_LOSSES)
@pytest.mark.parametrize(
    ("wrap", "weighting"), [(False, None), (True, None), (False, "magnitude"), (True, "magnitude")]
)
def test_every_form_is_torchs_where_no_bin_is_silent(name, wrap, weighting):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(3)
    target = random.standard_normal((2, 2, 512 + 3 * 64)).astype(np.float32)
    prediction = target + 0.3 * random.standard_normal(target.shape).astype(np.float32)
    leaf = torch.from_numpy(prediction).requires_grad_()
    magnitude = weighting == "magnitude"
    expected = torch_phase_loss(name, leaf, torch.from_numpy(target), 256, wrap=wrap, magnitude=magnitude)
    (expected_gradient,) = torch.autograd.grad(expected, leaf)
    options = {"weighting": weighting} | ({} if name == "correlation" else {"wrap": wrap})

    def loss(x):
        return PHASE_LOSSES[name](x, jnp.asarray(target.swapaxes(1, 2)), n_fft=256, hop_length=64, **options)

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(prediction.swapaxes(1, 2)))
    np.testing.assert_allclose(value, expected.item(), rtol=LOSS_VALUE)
    assert cosine(gradient, expected_gradient.numpy().swapaxes(1, 2)) >= LOSS_GRADIENT_COSINE


def worst_inputs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs (prediction, target) of 512 samples that break careless losses."""
    random = np.random.default_rng(1)
    silence = np.zeros((1, 512, 2), np.float32)
    impulse = silence.copy()
    impulse[0, 300] = 1
    square = np.broadcast_to(
        np.sign(np.sin(np.arange(512) * 2 * np.pi / 32 + 0.1))[None, :, None], (1, 512, 2)
    )
    square = square.astype(np.float32)
    noise = random.uniform(-1, 1, (1, 512, 2)).astype(np.float32)
    mono = np.repeat(noise[..., :1], 2, axis=-1)
    signals = {"silence": silence, "impulse": impulse, "square": square, "noise": noise, "mono": mono}
    pairs = {f"{a}-{b}": (signals[a], signals[b]) for a in signals for b in signals}
    return pairs | {"one channel": (noise[..., :1], square[..., :1]), "tiny": (1e-20 * noise, 1e-20 * square)}


def every_loss(n_fft: int) -> dict:
    """All losses of audio in all forms, by name."""
    size = {"n_fft": n_fft, "hop_length": n_fft // 4}
    forms = {
        "waveform": losses.waveform_loss,
        "log_waveform": losses.log_waveform_loss,
        "stft": lambda p, t: losses.multi_resolution_stft_loss(
            p, t, n_ffts=(n_fft, n_fft // 2), center=False
        ),
    }
    for weighting in (None, "magnitude"):
        forms[f"correlation {weighting}"] = lambda p, t, w=weighting: losses.correlation_loss(
            p, t, weighting=w, **size
        )
        for wrap in (False, True):
            for name in ("group_delay", "instantaneous_frequency"):
                forms[f"{name} {wrap} {weighting}"] = lambda p, t, n=name, o=(wrap, weighting): PHASE_LOSSES[
                    n
                ](p, t, wrap=o[0], weighting=o[1], **size)
    return forms


@pytest.mark.parametrize(
    ("n_fft", "k_weighted"), [(128, False), (512, True)], ids=["frames", "one frame, K-weighted"]
)
def test_losses_are_finite_on_the_worst_inputs(n_fft, k_weighted):
    forms = every_loss(n_fft)

    @jax.jit
    @jax.vmap
    def evaluate(prediction, target):
        def all_forms(x):
            y = target[None]
            x = x[None]
            if k_weighted:
                x, y = losses.k_weight(x, SAMPLE_RATE), losses.k_weight(y, SAMPLE_RATE)
            return jnp.stack([loss(x, y) for loss in forms.values()])

        values, pull_back = jax.vjp(all_forms, prediction)
        return values, jax.vmap(lambda seed: pull_back(seed)[0])(jnp.eye(len(forms)))

    pairs = worst_inputs()
    stereo = {name: pair for name, pair in pairs.items() if pair[0].shape[-1] == 2}
    stacked = [jnp.concatenate([pair[i] for pair in stereo.values()]) for i in (0, 1)]
    values, gradients = evaluate(*stacked)
    mono_values, mono_gradients = evaluate(*(jnp.asarray(x) for x in pairs["one channel"]))
    assert np.isfinite(mono_values).all()
    assert np.isfinite(mono_gradients).all()
    for row, name in enumerate(stereo):
        for column, form in enumerate(forms):
            assert np.isfinite(values[row, column]), f"{form} of {name}"
            assert np.isfinite(gradients[row, column]).all(), f"gradient of {form} of {name}"
            if len(set(name.split("-"))) == 1 and name != "tiny" and form != "correlation None":
                assert values[row, column] < 1e-5, f"{form} of identical inputs, {name}"


@pytest.mark.parametrize("name", PHASE_LOSSES)
@pytest.mark.parametrize(("n_fft", "hop"), [(2048, 512), (512, 128), (128, 32), (512, 300)])
def test_weighted_gradients_keep_their_bound(pair, name, n_fft, hop):
    """N · max |∂L/∂x| ≤ 1 on music, on far apart levels and on signals that have nothing in common."""
    random = np.random.default_rng(0)
    crossed = jnp.asarray(random.standard_normal((1, 4096, 2)).astype(np.float32))
    cases = [pair, (1e-4 * pair[0], 1e3 * pair[1]), (crossed, crossed[:, ::-1])]
    loss = PHASE_LOSSES[name]
    gradient = jax.jit(jax.grad(lambda x, y: loss(x, y, n_fft=n_fft, hop_length=hop)))
    for prediction, target in cases:
        assert float(jnp.abs(gradient(prediction, target)).max()) * prediction.size <= 1


def test_weighted_gradients_do_not_feel_silent_bins(pair):
    """Noise at −120 dB changes the published gradient beyond recognition and leaves the weighted one."""
    prediction, target = pair
    dithered = prediction + 1e-6 * jnp.asarray(np.random.default_rng(0).standard_normal(prediction.shape))
    for weighting, steady in ((None, False), ("magnitude", True)):
        gradient = jax.jit(
            jax.grad(
                lambda x, w=weighting: losses.group_delay_loss(
                    x, target, n_fft=2048, hop_length=512, weighting=w
                )
            )
        )
        assert (cosine(gradient(dithered), gradient(prediction)) > 0.99) == steady


@pytest.mark.parametrize(("convergence", "log"), [(True, True), (True, False), (False, True)])
def test_multi_resolution_stft_is_auralosss(convergence, log):
    """On one item: auraloss takes the convergence over the whole batch, here each signal has its own."""
    torch = pytest.importorskip("torch")
    auraloss = pytest.importorskip("auraloss.freq")
    random = np.random.default_rng(5)
    target = random.standard_normal((1, 600, 1)).astype(np.float32)
    prediction = target + random.standard_normal(target.shape).astype(np.float32)
    sizes = [128, 64]
    reference = auraloss.MultiResolutionSTFTLoss(
        sizes, [n // 4 for n in sizes], sizes, w_sc=float(convergence), w_log_mag=float(log)
    )
    expected = reference(*(torch.from_numpy(x.swapaxes(1, 2).copy()) for x in (prediction, target)))
    ours = losses.multi_resolution_stft_loss(
        jnp.asarray(prediction),
        jnp.asarray(target),
        n_ffts=sizes,
        spectral_convergence=convergence,
        log_magnitude=log,
    )
    np.testing.assert_allclose(ours, expected.item(), rtol=LOSS_VALUE)


def test_mid_and_side_are_supervised():
    """MSLR is the mean of the loss on mid and side and of the loss on left and right."""
    random = np.random.default_rng(6)
    target, prediction = (jnp.asarray(random.standard_normal((2, 300, 2)), jnp.float32) for _ in range(2))

    def loss(x, y, mid_side):
        return losses.multi_resolution_stft_loss(x, y, n_ffts=(64,), mid_side=mid_side)

    sum_difference = jnp.asarray([[1, 1], [1, -1]]) / 2
    expected = (
        loss(prediction, target, False) + loss(prediction @ sum_difference, target @ sum_difference, False)
    ) / 2
    np.testing.assert_allclose(loss(prediction, target, True), expected, rtol=LOSS_VALUE)


def test_the_log_of_the_waveform_counts_every_item_alike():
    target = np.random.default_rng(9).standard_normal((2, 300, 2)).astype(np.float32)
    target[1] *= 0.01
    prediction = target * np.array([1.1, 0.0], np.float32)[:, None, None]  # 20 dB, and 0 dB
    expected = (np.log(0.01 + 1e-3) + np.log(1 + 1e-3)) / 2
    loss, gradient = jax.value_and_grad(losses.log_waveform_loss)(
        jnp.asarray(prediction), jnp.asarray(target)
    )
    np.testing.assert_allclose(loss, expected, rtol=LOSS_VALUE)
    # Ten per cent more of the error costs both the same, however loud they are and however wrong.
    pulls = np.sum(gradient * (prediction - target), axis=(1, 2))
    np.testing.assert_allclose(pulls, [0.01 / 0.011, 1 / 1.001], rtol=1e-4)


def test_a_silent_side_is_measured_against_the_loudest_signal():
    mono = jnp.asarray(np.random.default_rng(7).standard_normal((1, 300, 1)), jnp.float32).repeat(2, axis=-1)
    nearly = mono.at[..., 0].multiply(1.0001)
    loss = losses.multi_resolution_stft_loss(nearly, mono, n_ffts=(64,), center=False, log_magnitude=False)
    assert float(loss) < 0.01


def test_half_precision_audio_is_measured_in_float32():
    random = np.random.default_rng(8)
    prediction, target = (jnp.asarray(random.standard_normal((1, 300, 2)), jnp.bfloat16) for _ in range(2))
    chosen = ("waveform", "log_waveform", "stft", "correlation None", "group_delay True magnitude")
    forms = {name: loss for name, loss in every_loss(64).items() if name in chosen}
    assert len(forms) == len(chosen)

    @jax.jit
    def evaluate(x, y):
        return [jax.value_and_grad(loss)(x, y) for loss in forms.values()]

    exact = evaluate(prediction.astype(jnp.float32), target.astype(jnp.float32))
    for name, (value, gradient), (expected, _) in zip(
        forms, evaluate(prediction, target), exact, strict=True
    ):
        assert value.dtype == jnp.float32, name
        assert gradient.dtype == jnp.bfloat16, name
        np.testing.assert_allclose(value, expected, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", [*PHASE_LOSSES, "stft", "waveform", "log_waveform"])
def test_shapes_that_differ_are_refused(name):
    a, b = jnp.zeros((1, 100, 2)), jnp.zeros((1, 101, 2))
    form = {"correlation": " None", "stft": "", "waveform": "", "log_waveform": ""}.get(name, " True None")
    loss = every_loss(64)[name + form]
    with pytest.raises(ValueError, match="prediction"):
        jax.jit(loss)(a, b)


def test_unknown_options_are_refused():
    audio = jnp.zeros((1, 100, 2))
    with pytest.raises(ValueError, match="weighting"):
        losses.group_delay_loss(audio, audio, n_fft=64, hop_length=16, weighting="loudness")
    with pytest.raises(ValueError, match="switched off"):
        losses.multi_resolution_stft_loss(audio, audio, spectral_convergence=False, log_magnitude=False)
    with pytest.raises(ValueError, match="100 samples"):
        losses.correlation_loss(audio, audio, n_fft=128, hop_length=32)
