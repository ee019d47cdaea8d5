"""Metrics against the published evaluation's records, auraloss, and signals whose answer is known."""

import json
import sys
import types
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import AURALOSS, COHERENCE, DISTANCE, LOUDNESS_LU, LOUDNESS_RANGE_LU, SI_SDR_DB, TRUE_PEAK_DB

from earvae_jax.signal import spectral_metrics
from earvae_jax.signal.metrics import evaluate_pair, measure_pair
from earvae_jax.signal.spectral import mel_filters

if TYPE_CHECKING:  # torch is optional
    import torch

RATE = 44_100
BATCH = spectral_metrics._STEP * spectral_metrics._BLOCKS_PER_CALL  # samples in one call of the program


def pair(samples: int, channels: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    original = 0.2 * random.standard_normal((samples, channels)).astype(np.float32)
    return original, original + 0.1 * random.standard_normal(original.shape).astype(np.float32)


def tensor(audio: np.ndarray) -> "torch.Tensor":
    torch = pytest.importorskip("torch")
    return torch.from_numpy(np.ascontiguousarray(audio.T))[None]


@pytest.fixture(scope="module")
def auraloss_mel():
    """auraloss imports librosa for its mel filters alone."""
    freq = pytest.importorskip("auraloss.freq")
    librosa, filters = types.ModuleType("librosa"), types.ModuleType("librosa.filters")
    filters.mel = lambda *, sr, n_fft, n_mels: mel_filters(sr, n_fft, n_mels).T
    librosa.filters = filters
    sys.modules |= {"librosa": librosa, "librosa.filters": filters}
    sizes = list(spectral_metrics.MEL_SIZES)
    yield freq.MultiResolutionSTFTLoss(
        sizes,
        [n // 4 for n in sizes],
        sizes,
        sample_rate=RATE,
        scale="mel",
        n_bins=spectral_metrics.N_MELS,
        perceptual_weighting=True,
    )
    del sys.modules["librosa"], sys.modules["librosa.filters"]


@pytest.fixture(scope="module")
def auraloss_stft():
    freq = pytest.importorskip("auraloss.freq")
    sizes = list(spectral_metrics.STFT_SIZES)
    return freq.MultiResolutionSTFTLoss(
        sizes, [n // 4 for n in sizes], sizes, sample_rate=RATE, perceptual_weighting=True
    )


@pytest.mark.parametrize("name", ["guitar", "harmonics", "softclip"])
def test_recorded_evaluations_are_reproduced(shared_audio, name):
    expected = json.loads((shared_audio / "metrics.json").read_text())[name]
    original, reconstruction = (
        soundfile.read(shared_audio / f"{name}{suffix}.wav", dtype="float32")[0]
        for suffix in ("", "_vae_rec")
    )
    values = evaluate_pair(original, reconstruction, RATE)
    assert values["si_sdr"] == pytest.approx(expected["sisdr"], abs=SI_SDR_DB)
    assert values["stft_distance"] == pytest.approx(expected["stft_distance"], rel=DISTANCE)
    assert values["mel_distance"] == pytest.approx(expected["mel_distance"], rel=DISTANCE)
    assert values["icpc"] == pytest.approx(expected["per_channel_coherence"], abs=COHERENCE)
    assert values["ccpc"] == pytest.approx(expected["interchannel_coherence"], abs=COHERENCE)
    for prefix, side in (("", "gen"), ("original_", "gt")):
        recorded = expected[side]
        assert values[prefix + "lufs"] == pytest.approx(recorded["LUFS-I"], abs=LOUDNESS_LU)
        assert values[prefix + "lra"] == pytest.approx(recorded["LRA"], abs=LOUDNESS_RANGE_LU)
        assert values[prefix + "true_peak"] == pytest.approx(recorded["True Peak"], abs=TRUE_PEAK_DB)
    assert values["lufs_difference"] == values["lufs"] - values["original_lufs"]


@settings(max_examples=4, deadline=None)
@given(
    samples=st.one_of(
        st.integers(2049, 30_000),
        st.sampled_from([BATCH, BATCH - 1, BATCH + 1, BATCH - 2 * 2048, BATCH // 4, BATCH // 4 + 4096]),
    ),
    channels=st.sampled_from([1, 2]),
)
def test_distances_are_auralosss_at_any_length(auraloss_stft, auraloss_mel, samples, channels):
    auraloss = pytest.importorskip("auraloss.time")
    original, reconstruction = pair(samples, channels, seed=samples)
    values = evaluate_pair(original, reconstruction, RATE)
    tensors = tensor(reconstruction), tensor(original)
    assert values["stft_distance"] == pytest.approx(auraloss_stft(*tensors).item(), rel=AURALOSS)
    assert values["mel_distance"] == pytest.approx(auraloss_mel(*tensors).item(), rel=AURALOSS)
    assert values["si_sdr"] == pytest.approx(-auraloss.SISDRLoss()(*tensors).item(), abs=SI_SDR_DB)
    assert (values["ccpc"] is None) == (channels == 1)


@pytest.mark.parametrize("samples", [2049, 3000])
def test_measuring_again_gives_the_same(samples):
    """Sums over the frames that exist, of which there are few here, are no race of the machine's threads."""
    original, reconstruction = pair(samples)
    first = spectral_metrics.measure_spectra(original, reconstruction, RATE)
    for _ in range(60):
        again = spectral_metrics.measure_spectra(original, reconstruction, RATE)
        assert (again.stft_distance, again.mel_distance, again.icpc) == (
            first.stft_distance, first.mel_distance, first.icpc,
        )  # fmt: skip


def published_coherence(prediction: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """ICPC and CCPC by their definition, frame by frame, with the angles written out."""
    torch = pytest.importorskip("torch")
    within, across = [], []
    for n_fft in spectral_metrics.COHERENCE_SIZES:
        p, t = (
            torch.stft(tensor(x)[0], n_fft, n_fft // 4, window=torch.hann_window(n_fft), return_complex=True)
            for x in (prediction, target)
        )
        between = [x[0] * x[1].conj() for x in (p, t)]
        for results, weights, turn in (
            (within, p.abs() * t.abs(), p.angle() - t.angle()),
            (across, between[0].abs()[None], (between[0].angle() - between[1].angle())[None]),
        ):
            weights = torch.where(weights > 1e-6, weights, 0)
            energy = weights.sum(1)
            coherence = (weights * torch.exp(1j * turn)).sum(1).abs() / energy.clamp(min=1e-8)
            results.append(((coherence * energy).sum(1) / energy.sum(1)).mean().item())
    return np.mean(within), np.mean(across)


def test_coherence_is_the_published_one():
    original, reconstruction = pair(20_000)
    original[5_000:9_000] = 0  # frames without weight
    original[:, 1] += original[:, 0]
    values = evaluate_pair(original, reconstruction, RATE)
    expected = published_coherence(reconstruction, original)
    assert (values["icpc"], values["ccpc"]) == pytest.approx(expected, abs=1e-5)


def test_coherence_falls_where_phase_is_lost():
    """A pure gain leaves both at 1; random phases in the top half of one channel break that half alone."""
    original, _ = pair(20_000)
    same = measure_pair(original, 0.5 * original, RATE)
    assert same.values["icpc"] == pytest.approx(1, abs=1e-6)
    assert same.values["ccpc"] == pytest.approx(1, abs=1e-6)
    spectrum = np.fft.rfft(original[:, 1])
    random = np.random.default_rng(1)
    half = len(spectrum) // 2
    spectrum[half:] *= np.exp(2j * np.pi * random.random(len(spectrum) - half))
    broken = original.copy()
    broken[:, 1] = np.fft.irfft(spectrum, len(original))
    spectra = measure_pair(original, broken, RATE).spectra
    low, high = spectra.frequencies < 10_000, spectra.frequencies > 12_000
    for curve, floor in ((spectra.icpc_curve, 0.4), (spectra.ccpc_curve, 0)):
        assert np.nanmin(curve[low][2:]) > 0.97
        assert floor < np.nanmean(curve[high]) < 0.8


def test_a_perfect_reconstruction():
    original, _ = pair(140_000)
    values = evaluate_pair(original, original, RATE)
    assert values["si_sdr"] > 80
    assert values["stft_distance"] == values["mel_distance"] == 0
    assert values["lufs_difference"] == values["lra_difference"] == values["true_peak_difference"] == 0


def test_silence_leaves_metrics_undefined():
    original, reconstruction = pair(140_000)
    silence = np.zeros_like(original)
    from_silence = evaluate_pair(silence, reconstruction, RATE)
    undefined = {
        "si_sdr",
        "stft_distance",
        "mel_distance",
        "icpc",
        "ccpc",
        "original_lufs",
        "original_true_peak",
    }
    assert all(from_silence[name] is None for name in undefined | {"lufs_difference"})
    assert from_silence["lufs"] is not None
    to_silence = evaluate_pair(original, silence, RATE)
    assert all(to_silence[name] is None for name in ("si_sdr", "icpc", "ccpc", "lufs", "lra", "true_peak"))
    assert to_silence["stft_distance"] > 1
    assert all(value is None for value in evaluate_pair(silence, silence, RATE).values())


def test_a_silent_channel_is_left_out():
    original, reconstruction = pair(30_000)
    alone = evaluate_pair(original[:, :1], reconstruction[:, :1], RATE)
    original[:, 1] = reconstruction[:, 1] = 0
    values = evaluate_pair(original, reconstruction, RATE)
    assert values["si_sdr"] == pytest.approx(alone["si_sdr"])
    assert values["icpc"] == pytest.approx(alone["icpc"], abs=1e-6)
    assert values["ccpc"] is None


@pytest.mark.parametrize("samples", [1, 10, 2048, 5000])
def test_short_audio_has_what_it_can_have(samples):
    values = evaluate_pair(*pair(samples), RATE)
    assert json.dumps(values, allow_nan=False)
    assert (values["stft_distance"] is None) == (samples <= 2048)
    assert values["lufs"] is None
    assert values["true_peak"] is not None


@pytest.mark.parametrize(
    ("original", "reconstruction", "message"),
    [
        (np.zeros((10, 2)), np.zeros((11, 2)), "differ in shape"),
        (np.zeros((10, 2)), np.zeros((10, 1)), "differ in shape"),
        (np.zeros((10, 6)), np.zeros((10, 6)), "1 or 2 channels"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "1 or 2 channels"),
        (np.zeros((10, 2)), np.full((10, 2), np.nan), "NaN"),
    ],
)
def test_what_cannot_be_measured_is_refused(original, reconstruction, message):
    with pytest.raises(ValueError, match=message):
        evaluate_pair(original, reconstruction, RATE)
