"""Audio as people have it: what arrays mean, paths, lists, and what is refused with which remedy."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_file import codec_of, sizes_for

from earvae_jax.errors import UserError
from earvae_jax.infer import Codec
from earvae_jax.infer.inputs.audio import audio_input, to_amplitudes

RATE = small_models.SAMPLE_RATE
KIND = "even strides"
FLOATS = [np.float16, np.float32, np.float64, np.longdouble, jnp.bfloat16, np.dtype(">f4")]
PCM = ["int8", "int16", "int32", "uint8", "uint16", "uint32", ">i2", ">i4", ">u2"]


@functools.cache
def codec() -> Codec:
    return codec_of(KIND)


def noise(samples, channels=2, seed=0):
    return 0.3 * np.random.default_rng(seed).standard_normal((samples, channels), np.float32)


def samples_of(given, channels=2) -> np.ndarray:
    """What the codec reads of it."""
    with audio_input(given, channels=channels, default_rate=RATE).open() as reader:
        return np.concatenate(list(reader.blocks(7)))


def refusal(function, *arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(
    dtype=st.sampled_from(PCM), length=st.integers(1, 40), channels=st.sampled_from([0, 1, 2]), data=st.data()
)
def test_integer_pcm_is_scaled_by_its_full_scale(dtype, length, channels, data):
    """Its lowest number is −1, its zero is 0, and the difference of any two is that of their amplitudes."""
    limits = np.iinfo(dtype)
    shape = (length, channels) if channels else (length,)
    number = st.one_of(
        st.sampled_from([limits.min, limits.max]), st.integers(int(limits.min), int(limits.max))
    )
    values = data.draw(st.lists(number, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    given_array = np.asarray(values).astype(dtype).reshape(shape)
    span = int(limits.max) - int(limits.min) + 1
    expected = 2 * (np.asarray(values, np.float64) - int(limits.min)) / span - 1
    read = samples_of(given_array)
    assert read.dtype == np.float32 and read.shape == (length, max(1, channels))
    np.testing.assert_array_equal(read.ravel(), expected.astype(np.float32))


@given(dtype=st.sampled_from(FLOATS), length=st.integers(1, 40), channels=st.sampled_from([0, 1, 2]))
def test_floats_are_amplitudes(dtype, length, channels):
    audio = noise(length, channels or 1).astype(dtype)
    audio = audio if channels else audio[:, 0]
    np.testing.assert_array_equal(samples_of(audio).ravel(), audio.astype(np.float32).ravel())


@settings(deadline=None, max_examples=20)
@given(
    shape=st.one_of(
        st.tuples(st.integers(0, 300)),
        st.tuples(st.integers(0, 300), st.integers(0, 12)),
        st.tuples(st.integers(0, 12), st.integers(0, 300)),
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
        st.just(()),
    ),
    dtype=st.sampled_from(["float32", "int16", "float64"]),
)
def test_every_shape_comes_back_or_is_refused_in_one_line(shape, dtype):
    audio = np.zeros(shape, dtype)
    if audio.ndim in (1, 2) and audio.size and (audio.ndim == 1 or shape[1] in (1, 2)):
        result = codec().reconstruct(audio)
        assert result.shape == shape and result.dtype == np.float32
        return
    message = refusal(codec().reconstruct, audio)
    looks_transposed = audio.ndim == 2 and 0 < shape[0] < shape[1]
    assert ("transpose" in message) == looks_transposed


@pytest.mark.parametrize("channels", [1, 2])
def test_channels_first_is_refused_with_the_remedy(channels):
    audio = noise(500, channels)
    assert "[samples, channels] with 1 or 2 channels" in refusal(codec().encode, audio.T)
    assert "audio.T" in refusal(codec().reconstruct, audio.T)
    assert "list of arrays" in refusal(codec().encode, audio[None])
    latents = codec().encode(audio).mean
    assert "latents.T" in refusal(codec().decode, latents.T)
    assert "list of arrays" in refusal(codec().decode, latents[None])


def test_pcm_gives_the_latents_of_its_amplitudes():
    pcm = np.random.default_rng(0).integers(-20_000, 20_000, (900, 2), np.int16)
    expected = codec().encode(pcm.astype(np.float32) / 32768)
    np.testing.assert_array_equal(codec().encode(pcm).mean, expected.mean)
    np.testing.assert_array_equal(
        codec().reconstruct(pcm), codec().reconstruct(pcm.astype(np.float64) / 32768)
    )


def test_one_dimension_is_mono_and_comes_back_as_one():
    audio = noise(700, 1)
    latents = codec().encode(audio[:, 0])
    assert latents.channels == 1
    np.testing.assert_array_equal(latents.mean, codec().encode(audio).mean)
    assert codec().decode(latents).shape == (700, 1)
    np.testing.assert_array_equal(codec().reconstruct(audio[:, 0]), codec().reconstruct(audio)[:, 0])


def test_jax_arrays_on_one_device_and_over_several():
    audio = noise(512)
    expected = codec().encode(audio).mean
    spread = jax.sharding.NamedSharding(jax.make_mesh((len(jax.devices()),), ("x",)), jax.P("x"))
    for array in (jnp.asarray(audio), jax.device_put(audio, spread)):
        np.testing.assert_array_equal(codec().encode(array).mean, expected)
    half = jnp.asarray(audio, jnp.bfloat16)
    np.testing.assert_array_equal(samples_of(half), np.asarray(half, np.float32))
    assert "jit" in refusal(jax.jit(codec().encode), jnp.asarray(audio))


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    audio = noise(400)
    for tensor in (
        torch.from_numpy(audio),
        torch.from_numpy(audio).requires_grad_(),
        torch.from_numpy(audio.T.copy()).T,
        torch.from_numpy(audio).double(),
    ):
        np.testing.assert_array_equal(samples_of(tensor), audio)
    half = torch.from_numpy(audio).bfloat16()
    np.testing.assert_array_equal(samples_of(half), half.float().numpy())
    pcm = torch.tensor([[-32768, 16384]], dtype=torch.int16)
    np.testing.assert_array_equal(samples_of(pcm), [[-1, 0.5]])
    latents = torch.zeros(4, 4, requires_grad=True)
    assert codec().decode(latents).shape == (32, 2)
    model = small_models.model(small_models.KINDS[KIND])
    assert model.encode(torch.from_numpy(audio)[None].requires_grad_()).mean.shape == (1, 50, 4)
    for refused in (torch.ones(9, 2, dtype=torch.bool), torch.ones(9, 2, dtype=torch.complex64)):
        assert "real numbers" in refusal(codec().encode, refused)
    assert "is not an array of numbers" in refusal(codec().encode, torch.eye(2).to_sparse())


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.ones((9, 2), bool), "bool"),
        (np.ones((9, 2), np.complex64), "complex64"),
        (np.ones((9, 2), object), "object"),
        (np.full((9, 2), "a"), "real numbers"),
        (np.ones((9, 2), np.int64), "astype('int16')"),
        (np.ones((9, 2), np.uint64), "astype('int16')"),
        (np.ones((9, 2), "m8[s]"), "timedelta64"),
        (np.ma.masked_less(noise(9), 0), "filled(0)"),
        (np.full((9, 2), 1e300), "18 NaN or infinite"),
        (b"abcd", "bytes is not an array"),
        ({"mean": 1}, "dict is not an array"),
        (None, "NoneType is not an array"),
        (iter([]), "list_iterator is not an array"),
        (3.0, "[samples]"),
    ],
)
def test_what_is_no_audio_is_refused_in_one_line(audio, message):
    assert message in refusal(codec().encode, audio)


@pytest.mark.parametrize("rate", [0, -1, 44_100.5, float("nan"), float("inf"), "44100", True])
def test_a_rate_that_is_none_is_refused(rate):
    assert "sample_rate" in refusal(codec().encode, noise(9), sample_rate=rate)


@pytest.mark.parametrize("rate", [11_025, 11_025.0, np.int64(11_025), np.float32(11_025)])
def test_a_rate_of_any_number_is_a_whole_number(rate):
    latents = codec().encode(noise(90), sample_rate=rate)
    assert (latents.sample_rate, type(latents.sample_rate)) == (11_025, int)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    for name, channels, rate in (("a", 2, RATE), ("b", 1, 11_025), ("twelve", 12, RATE)):
        soundfile.write(folder / f"{name}.wav", noise(800, channels), rate, subtype="FLOAT")
    (folder / "text.wav").write_text("no audio")
    return folder


def test_a_path_is_the_file(folder):
    audio = noise(800)
    for path in (folder / "a.wav", str(folder / "a.wav")):
        latents = codec().encode(path)
        np.testing.assert_array_equal(latents.mean, codec().encode(audio).mean)
        assert latents.name == "a.wav"
        np.testing.assert_array_equal(codec().reconstruct(path), codec().reconstruct(audio))
    assert codec().reconstruct(folder / "b.wav").shape == (800, 1)
    assert codec().encode(folder / "b.wav", sample_rate=11_025, name="mine").name == "mine"
    message = refusal(codec().encode, folder / "b.wav", sample_rate=RATE)
    assert message.startswith(f"{folder / 'b.wav'}: has 11025 Hz")
    assert refusal(codec().encode, str(folder / "twelve.wav")).startswith(
        f"{folder / 'twelve.wav'}: 12 channels"
    )
    assert "no such file" in refusal(codec().encode, "song.mp3")


def test_a_list_gives_what_its_items_give_in_order(folder):
    items = [noise(3000, seed=1), folder / "b.wav", noise(10, 1, seed=2)[:, 0], str(folder / "a.wav")]
    for function in (codec().encode, codec().reconstruct):
        together, alone = function(items), [function(item) for item in items]
        assert isinstance(together, list)
        for ours, expected in zip(together, alone, strict=True):
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(expected))
            assert np.shape(ours) == np.shape(expected)
    latents = codec().encode(tuple(items))
    assert [found.samples for found in latents] == [3000, 800, 10, 800]
    for ours, expected in zip(codec().decode(latents), map(codec().decode, latents), strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert codec().encode([]) == codec().decode([]) == []


def test_windows_of_a_list_share_batches():
    config = small_models.KINDS[KIND]
    batched = Codec(small_models.model(config), window_sizes=sizes_for(config), batch_size=4)
    encoded = []
    encode = batched.engine.compiled.encode

    def counted(audio, *arguments):
        encoded.append(len(audio))
        return encode(audio, *arguments)

    batched.engine.compiled.encode = counted
    batched.encode([noise(50, seed=seed) for seed in range(4)])
    assert encoded == [4]


@pytest.mark.parametrize("function", ["encode", "reconstruct"])
def test_a_bad_item_of_a_list_is_named(folder, function):
    function = getattr(codec(), function)
    good = noise(60)
    assert refusal(function, [good, noise(0)]) == "audio[1]: audio holds no samples"
    assert refusal(function, [good, good, folder / "text.wav"]).startswith(
        f"audio[2]: {folder / 'text.wav'}: "
    )
    assert refusal(function, [folder / "twelve.wav", good]).startswith(
        f"audio[0]: {folder / 'twelve.wav'}: 12 channels"
    )
    # What soundfile.read gives, numbers, and lists of them.
    for wrong in ((good, RATE), [0.5, 0.25], [[0.5, 0.25]], [good, [good]]):
        assert "numpy.asarray" in refusal(function, wrong)


def test_latents_are_read_from_paths_and_lists(folder, small_checkpoint, earvae):
    code, _ = earvae(
        "encode", folder / "a.wav", "--checkpoint", small_checkpoint, "--output-dir", folder / "latents"
    )
    assert code == 0
    ours = Codec.load(small_checkpoint)
    path = folder / "latents" / "a.npz"
    latents = ours.encode(folder / "a.wav")
    expected = ours.decode(latents)
    assert expected.shape == (800, 2)
    for item in (path, str(path), latents):
        np.testing.assert_array_equal(ours.decode(item), expected)
    np.testing.assert_array_equal(ours.decode([path, latents, latents.mean])[2], expected)
    message = refusal(ours.decode, [latents, folder / "a.wav"])
    assert message.startswith(f"latents[1]: {folder / 'a.wav'}: not a readable latent file")
    other = Codec(small_models.model(small_models.KINDS[KIND], seed=1))
    assert refusal(other.decode, str(path)).startswith(f"{path}: encoded by another model")


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (np.zeros((9, 4), np.int32), "int32; expected floats"),
        (np.zeros((9, 4), bool), "bool"),
        (np.full((9, 4), np.nan), "36 NaN"),
        (np.zeros(4), "expected [latents, 4]"),
        ("latents.npz", "no such file"),
        ("https://example.org/a.npz", "https://example.org/a.npz: only local files"),
    ],
)
def test_what_is_no_latents_is_refused_in_one_line(latents, message):
    assert message in refusal(codec().decode, latents)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, jnp.bfloat16])
def test_latents_of_any_floats(dtype):
    latents = noise(12, 4).astype(dtype)
    expected = codec().decode(latents.astype(np.float32))
    np.testing.assert_array_equal(codec().decode(jnp.asarray(latents)), expected)
    np.testing.assert_array_equal(codec().decode(latents), expected)


def test_pcm_is_converted_a_block_at_a_time():
    """An hour of it is never held as floats."""
    array = np.zeros((1000, 2), np.int16)
    with audio_input(array, channels=2, default_rate=RATE).open() as reader:
        assert [block.shape for block in reader.blocks(400)] == [(400, 2), (400, 2), (200, 2)]


def test_float32_is_read_as_it_lies():
    array = np.zeros((1000, 2), np.float32)
    with audio_input(array, channels=2, default_rate=RATE).open() as reader:
        (block,) = reader.blocks(400)
    assert np.shares_memory(block, array)


@pytest.fixture(scope="module")
def model():
    return small_models.model(small_models.KINDS[KIND])


@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [
        ("int16", "audio / 32768"),
        ("int32", "audio / 2147483648"),
        ("uint8", "(audio - 128.0) / 128"),
        ("int64", "astype('int16')"),
        ("bool", "bool values"),
        ("complex64", "complex64 values"),
        ("float8_e4m3fn", "16 or 32 bits"),
    ],
)
def test_the_model_refuses_other_numbers_than_floats(model, dtype, remedy):
    audio = np.zeros((1, 64, 2), jnp.dtype(dtype))
    assert remedy in refusal(model.encode, audio)
    if dtype != "int64":
        assert remedy in refusal(jax.jit(lambda x: model.encode(x).mean), audio)
    message = refusal(model.decode, np.zeros((1, 8, 4), jnp.dtype(dtype)))
    assert "expected" in message or "16 or 32 bits" in message


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint8", "uint16"])
def test_the_models_remedy_is_what_the_codec_does(model, dtype):
    limits = np.iinfo(dtype)
    audio = np.random.default_rng(0).integers(limits.min, limits.max, (1, 64, 2), dtype)
    remedy = re.search("pass (.*), or let", refusal(model.encode, audio))[1]
    np.testing.assert_array_equal(eval(remedy, {"audio": audio}), to_amplitudes(audio))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", ">f4", "longdouble"])
def test_the_model_takes_floats(model, dtype):
    audio = noise(64)[None].astype(jnp.dtype(dtype))
    latents = jax.eval_shape(lambda: model.encode(audio).mean)
    decoded = jax.eval_shape(model.decode, latents)
    expected = dtype if dtype in ("float16", "bfloat16") else "float32"
    assert latents.dtype == decoded.dtype == jnp.dtype(expected)


def test_the_model_refuses_shapes_with_their_remedy(model):
    assert "swapaxes(1, 2)" in refusal(model.encode, noise(64).T[None])
    assert "audio[None]" in refusal(model.encode, noise(64))
    assert "str is not an array" in refusal(model.encode, "song.mp3")


def test_a_codec_of_a_path_says_what_to_call():
    assert "Codec.load" in refusal(Codec, "checkpoints/ear_vae_44k")
