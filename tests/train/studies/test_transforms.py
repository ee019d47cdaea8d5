"""Fixed transforms of the codec's rate: orthonormal, exact in their band, measured as an evaluation does."""

import json

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from earvae_jax.infer import Codec
from earvae_jax.infer.evaluation.evaluate import means, read_pair
from earvae_jax.infer.evaluation.pairs import Pair
from earvae_jax.signal.block_transforms import (
    BLOCK,
    KEPT,
    adaptive_dct,
    best_split,
    block_dct,
    klt,
    lapped_dct,
    learn_klt,
    side_ratio,
)
from earvae_jax.signal.metrics import evaluate_pair, si_sdr
from earvae_jax.train.studies import transforms

pytestmark = pytest.mark.usefixtures("quick_compilation")

FORMS = (block_dct, lapped_dct)


def music(samples: int, seed: int = 0) -> np.ndarray:
    """Noise that is louder below, and more of it in mid than in side; `[T, 2]`."""
    rng = np.random.default_rng(seed)
    slow = np.cumsum(rng.standard_normal((samples, 2)), axis=0)
    slow = slow - np.linspace(0, 1, samples)[:, None] * slow[-1]
    slow = (slow - slow.mean(axis=0)) / slow.std()
    return 0.1 * (slow @ [[1.0, 1.0], [0.3, -0.3]] + 0.1 * rng.standard_normal((samples, 2)))


def mid_side(audio):
    return audio @ [[1, 1], [1, -1]] / np.sqrt(2)


@pytest.mark.parametrize("transform", FORMS)
@settings(deadline=None, max_examples=20)
@given(samples=st.integers(1, 5000), half=st.sampled_from([8, 100, 512]))
def test_all_coefficients_give_the_input_back(transform, samples, half):
    audio = np.random.default_rng(samples).standard_normal((samples, 2))
    block = 2 * half
    np.testing.assert_allclose(transform(audio, block, block, block=block), audio, atol=1e-12)
    assert transform(audio.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("transform", FORMS)
def test_what_is_kept_and_what_is_lost_are_orthogonal(transform):
    audio = np.pad(music(4 * BLOCK), ((BLOCK, BLOCK), (0, 0)))  # overlapping blocks reach over the ends
    kept = transform(audio)
    assert 0.1 * np.sum(audio**2) < np.sum(kept**2) < np.sum(audio**2)
    assert abs(np.sum(kept * (audio - kept))) < 1e-9 * np.sum(audio**2)
    np.testing.assert_allclose(transform(kept), kept, atol=1e-12)


@pytest.mark.parametrize("transform", FORMS)
def test_mid_and_side_keep_their_own_numbers(transform):
    kept = mid_side(transform(music(4 * BLOCK), 48, 0))
    assert np.abs(kept[:, 1]).max() < 1e-12 < np.abs(kept[:, 0]).max()
    kept = mid_side(transform(music(4 * BLOCK), 0, 16))
    assert np.abs(kept[:, 0]).max() < 1e-12 < np.abs(kept[:, 1]).max()


def test_a_signal_inside_the_band_comes_back_exactly():
    time = np.arange(3 * BLOCK) % BLOCK + 0.5
    signals = np.stack([np.cos(np.pi * 47 * time / BLOCK), np.cos(np.pi * 15 * time / BLOCK)], axis=1)
    np.testing.assert_allclose(block_dct(mid_side(signals)), mid_side(signals), atol=1e-12)
    above = np.stack([np.cos(np.pi * 48 * time / BLOCK), np.cos(np.pi * 16 * time / BLOCK)], axis=1)
    assert np.abs(block_dct(mid_side(above))).max() < 1e-12


def test_overlapping_blocks_lose_less_of_a_tone():
    tone = np.sin(0.011 * np.arange(16 * BLOCK))[:, None] * [[1.0, 0.7]]
    inside = slice(BLOCK, -BLOCK)  # the first and the last block begin and end in silence
    lapped, alone = (si_sdr(tone[inside], form(tone)[inside]) for form in (lapped_dct, block_dct))
    assert lapped > alone + 6


@pytest.mark.parametrize("lapped", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_split_is_the_best(lapped, seed):
    audio = music(20 * BLOCK, seed) + 0.01  # with a mean, which SI-SDR leaves out
    if not lapped:
        audio[:, 1] *= 0.1 + seed
    ratios = [si_sdr(audio, FORMS[lapped](audio, mid, KEPT - mid)) for mid in range(KEPT + 1)]
    mid, side = best_split(audio, lapped=lapped)
    assert mid + side == KEPT
    assert ratios[mid] == pytest.approx(max(ratios), abs=2e-3)


@pytest.mark.parametrize("kept", [1, 7, KEPT - 1])
def test_each_block_has_the_split_that_loses_least(kept):
    audio = music(8 * BLOCK, 5)
    audio[4 * BLOCK :, 1] *= -1  # mid and side change places

    def losses(rebuilt):
        return np.square(rebuilt - audio).reshape(8, -1).sum(axis=1)

    fixed = np.array([losses(block_dct(audio, mid, kept - mid)) for mid in range(kept + 1)])
    np.testing.assert_allclose(losses(adaptive_dct(audio, kept)), fixed.min(axis=0), rtol=1e-9)
    assert fixed.sum(axis=1).min() > 1.01 * fixed.min(axis=0).sum()  # no division is the best of all blocks
    assert adaptive_dct(audio[:-300].astype(np.float32)).shape == audio[:-300].shape


def test_mono_and_silence_have_a_split():
    mono = np.repeat(music(9 * BLOCK)[:, :1], 2, axis=1)
    assert best_split(mono) == (KEPT, 0) and side_ratio(mono) is None
    assert sum(best_split(np.zeros((2000, 2)))) == KEPT
    assert best_split(mono * [1, -1]) == (0, KEPT)


def test_side_ratio():
    audio = mid_side(np.random.default_rng(0).standard_normal((100_000, 2)) * [1.0, 0.1])
    assert side_ratio(audio) == pytest.approx(-20, abs=0.2)


def test_the_klt_beats_the_dct_on_what_it_learned_from():
    pieces = [music(60 * BLOCK, seed).astype(np.float32) for seed in range(3)]
    directions = learn_klt(pieces)
    assert directions.shape == (2 * BLOCK, KEPT)
    np.testing.assert_allclose(directions.T @ directions, np.eye(KEPT), atol=1e-5)

    def error(transform):
        losses = [np.mean((piece - transform(piece)) ** 2) / np.mean(piece**2) for piece in pieces]
        return np.mean(losses)

    splits = [error(lambda piece, mid=mid: block_dct(piece, mid, KEPT - mid)) for mid in (32, 48, 64)]
    assert error(lambda piece: klt(piece, directions)) < min(splits)
    kept = klt(pieces[0], directions)
    np.testing.assert_allclose(klt(kept, directions), kept, atol=1e-5)


def test_a_klt_of_silence_is_refused():
    with pytest.raises(ValueError, match="silence"):
        learn_klt([np.zeros((4 * BLOCK, 2), np.float32)])


def test_metrics_are_those_of_evaluate():
    audio = music(9000).astype(np.float32)
    made = (audio + 0.02 * music(9000, 1)).astype(np.float32)
    ours = transforms.measure(audio, made, 44_100)
    whole = evaluate_pair(audio, made, 44_100)
    assert ours == {name: whole[name] for name in transforms.METRICS}
    nothing = transforms.measure(0 * audio, made, 44_100)
    assert nothing["si_sdr"] is None and nothing["stft_distance"] is None
    with pytest.raises(ValueError):
        transforms.measure(audio, made[:-1], 44_100)


@pytest.fixture
def folders(tmp_path):
    """Two pieces, another rate among them, and what a model made of them."""
    for name, rate, channels in (("a/one.flac", 44_100, 2), ("two.wav", 22_050, 1)):
        audio = music(rate // 2, rate)[:, :channels]
        for folder, suffix, noise in (("music", "", 0), ("made", "_vae_rec", 0.01)):
            path = (tmp_path / folder / name).with_suffix(".wav" if noise else name[-5:].lstrip("eo"))
            path = path.with_stem(path.stem + suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, audio + noise * np.random.default_rng(1).standard_normal(audio.shape), rate)
    return tmp_path


def test_the_study_of_a_folder(folders, capsys):
    out = folders / "figures.json"
    words = [folders / "music", "--learn-from", folders / "music", "--reconstructions", folders / "made"]
    assert transforms.main([*map(str, words), "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    pieces = {piece["name"]: piece for piece in content["pieces"]}
    assert set(pieces) == {"a/one.flac", "two.wav"} and not content["failed_files"]
    assert pieces["two.wav"]["side_db"] is None and pieces["two.wav"]["metrics"]["model"]["ccpc"] is None
    for name, made in (("a/one.flac", "a/one_vae_rec.wav"), ("two.wav", "two_vae_rec.wav")):
        pair = read_pair(Pair(name, folders / "music" / name, folders / "made" / made))
        expected = evaluate_pair(pair.original, pair.reconstruction, 44_100)
        assert pieces[name]["metrics"]["model"] == {key: expected[key] for key in transforms.METRICS}
        assert sum(pieces[name]["splits"]["best DCT"]) == KEPT
    own = [piece["metrics"]["KLT"]["si_sdr"] for piece in pieces.values()]
    assert content["means"]["KLT"]["si_sdr"] == pytest.approx(np.mean(own)) and means([]) == {}
    shown = capsys.readouterr().out
    assert shown.count("| a/one.flac |") == 1 and "| mono |" in shown and "| model |" in shown


def test_a_checkpoint_is_measured_as_its_reconstructions(folders, small_checkpoint, capsys):
    words = [folders / "music", "--checkpoint", small_checkpoint, "--json", folders / "out.json"]
    assert transforms.main([*map(str, words)]) == 0
    pieces = {piece["name"]: piece for piece in json.loads((folders / "out.json").read_text())["pieces"]}
    audio = transforms.read_at_rate(folders / "music" / "a" / "one.flac")
    made = Codec.load(small_checkpoint).reconstruct(audio, sample_rate=44_100)
    assert pieces["a/one.flac"]["metrics"]["model"] == pytest.approx(transforms.measure(audio, made, 44_100))
    change = transforms.side_ratio(made) - transforms.side_ratio(audio)
    assert pieces["a/one.flac"]["side_change"] == pytest.approx(change)
    assert pieces["two.wav"]["side_change"] is None
    said = capsys.readouterr().out
    assert "of 2 pieces" in said and f"3 dB on {int(abs(change) > 3)} of 1." in said


def test_an_excerpt_is_the_middle_of_both(folders, capsys):
    words = [folders / "music" / "a", "--reconstructions", folders / "made" / "a", "--excerpt-seconds", "0.2"]
    assert transforms.main([*map(str, words), "--json", str(folders / "out.json")]) == 0
    (piece,) = json.loads((folders / "out.json").read_text())["pieces"]
    assert piece["seconds"] == pytest.approx(0.2)
    assert piece["metrics"]["model"]["si_sdr"] > 15


def test_what_fails_is_named(folders, caplog, capsys):
    (folders / "music" / "bad.wav").write_bytes(b"no audio")
    (folders / "music" / "alone.wav").write_bytes((folders / "music" / "two.wav").read_bytes())
    words = [folders / "music", "--reconstructions", folders / "made", "--json", folders / "out.json"]
    assert transforms.main([*map(str, words)]) == 1
    failed = json.loads((folders / "out.json").read_text())["failed_files"]
    assert set(failed) == {"bad.wav", "alone.wav"} and "has no reconstruction" in failed["alone.wav"]
    assert transforms.main([str(folders / "nothing")]) == 2
