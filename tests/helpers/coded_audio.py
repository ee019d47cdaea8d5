"""Audio files of many codecs and containers, made with FFmpeg for a test."""

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import soundfile


class Coding(NamedTuple):
    """A codec in a container."""

    ending: str
    codec: str
    rates: tuple[int, ...]
    lossless: bool = False
    declares: bool = True  # the container says how much priming there is
    container: str | None = None


CODINGS = {
    "wav": Coding("wav", "pcm_s16le", (8000, 44_100, 96_000), lossless=True),
    "wav 24": Coding("wav", "pcm_s24le", (44_100, 48_000), lossless=True),
    "aiff": Coding("aiff", "pcm_s16be", (22_050, 44_100), lossless=True),
    "caf": Coding("caf", "pcm_s16le", (44_100,), lossless=True),
    "au": Coding("au", "pcm_s16be", (44_100,), lossless=True),
    "w64": Coding("w64", "pcm_s16le", (48_000,), lossless=True),
    "flac": Coding("flac", "flac", (44_100, 48_000, 96_000), lossless=True),
    "flac in ogg": Coding("oga", "flac", (44_100,), lossless=True, container="ogg"),
    "flac in mka": Coding("mka", "flac", (44_100,), lossless=True),
    "alac": Coding("m4a", "alac", (44_100, 48_000), lossless=True),
    "wavpack": Coding("wv", "wavpack", (44_100,), lossless=True),
    "tta": Coding("tta", "tta", (44_100,), lossless=True),
    "mp3": Coding("mp3", "libmp3lame", (22_050, 44_100, 48_000)),
    "mp2": Coding("mp2", "mp2", (44_100, 48_000), declares=False),
    "aac": Coding("aac", "aac", (44_100, 48_000), declares=False, container="adts"),
    "m4a": Coding("m4a", "aac", (44_100, 48_000)),
    "mp4": Coding("mp4", "aac", (48_000,)),
    "mka": Coding("mka", "aac", (44_100, 48_000)),
    "ts": Coding("ts", "mp2", (48_000,), declares=False),
    "avi": Coding("avi", "libmp3lame", (44_100,), declares=False),
    "ac3": Coding("ac3", "ac3", (48_000,), declares=False),
    "ogg": Coding("ogg", "vorbis", (22_050, 44_100, 48_000)),
    "opus": Coding("opus", "libopus", (48_000,)),
    "webm": Coding("webm", "libopus", (48_000,)),
    "wma": Coding("wma", "wmav2", (44_100,), declares=False),
}


def music(samples: int, channels: int, rate: int, seed: int = 0) -> np.ndarray:
    """Noise below 2 kHz and a chirp, so that no two stretches are alike and every coder keeps it; [T, C]."""
    rng = np.random.default_rng(seed)
    width = max(2, rate // 4000)
    noise = rng.standard_normal((samples + width, channels))
    smooth = np.apply_along_axis(
        lambda x: np.convolve(x, np.ones(width) / width, "valid")[:samples], 0, noise
    )
    time = np.arange(samples) / rate
    chirp = np.sin(2 * np.pi * (200 + 100 * time) * time)[:, None]
    return (0.15 * smooth + 0.1 * chirp).astype(np.float32)


def encode(path: Path, coding: Coding, audio: np.ndarray, rate: int) -> None:
    """Writes audio [T, C] to a file."""
    if coding.codec == "vorbis":  # FFmpeg's own encoder is experimental
        soundfile.write(path, audio, rate, format="OGG")
        return
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[audio.shape[1]]
    with av.open(str(path), "w", format=coding.container) as container:
        stream = container.add_stream(coding.codec, rate=rate, layout=layout)
        codec = stream.codec_context
        form = next(form for form in codec.codec.audio_formats if not form.name.startswith("u8"))
        codec.format = form
        if not coding.lossless:
            codec.bit_rate = 192_000
        codec.open()
        fifo = av.AudioFifo()
        fifo.write(_frame(audio, form.name, layout, rate))
        while (frame := fifo.read(codec.frame_size or 4096, partial=True)) is not None:
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decode(path: Path) -> np.ndarray:
    """What FFmpeg makes of a file's first audio stream, without any of this project's code; [T, C]."""
    with av.open(str(path)) as container:
        blocks = []
        for frame in container.decode(audio=0):
            array = frame.to_ndarray()
            array = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
            if array.dtype.kind == "i":
                array = array / float(np.iinfo(array.dtype).max + 1)
            elif array.dtype == np.uint8:
                array = (array.astype(np.float64) - 128) / 128
            blocks.append(array)
    return np.concatenate(blocks).astype(np.float32)


def _frame(audio: np.ndarray, form: str, layout: str, rate: int) -> av.AudioFrame:
    kind = form.rstrip("p")
    if kind == "flt":
        values = audio
    else:
        bits = {"s16": 16, "s32": 32}[kind]
        values = np.round(audio.astype(np.float64) * (2.0 ** (bits - 1) - 1)).astype(f"int{bits}")
        if kind == "s32":
            values = values & ~0xFF  # of 24 bits, as codecs keep them
    planes = values.T if form.endswith("p") else values.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes), format=form, layout=layout)
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
    return frame
