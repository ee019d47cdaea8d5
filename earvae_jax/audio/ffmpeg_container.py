"""What FFmpeg (PyAV) says about a file before it decodes anything: its stream, its format, its length."""

import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from absl import logging
from av.codec.context import Flags2

from earvae_jax.audio import mp3_header
from earvae_jax.borders import one_line, shown
from earvae_jax.errors import UserError

# Formats that hold only packets: FFmpeg counts them to make up times, and guesses their number.
GUESSED = frozenset(
    "mp3 aac ac3 eac3 ac4 dts dtshd truehd mlp loas amr amrnb amrwb g722 g729 gsm sbc aptx".split()  # noqa: SIM905
)
# The level of FFmpeg's log is one for all threads: two that change it at a time would restore the wrong one.
_LOG = threading.Lock()
WITHOUT_CLOCK = GUESSED | {"wav", "w64", "aiff", "au", "caf"}  # samples and nothing else
# From version 19 on, PyAV itself replaces bytes in a tag that are not UTF-8.
_OPENING: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def opened(path: Path) -> av.container.InputContainer:
    """Opens a file for reading; errors are those of FFmpeg and PyAV."""
    # FFmpeg cannot take an absolute name for a protocol, and no file may make FFmpeg open another one.
    options = {"protocol_whitelist": "file", "fflags": "fastseek"}
    return av.open(str(path.absolute()), options=options, **_OPENING)


def format_of(container: av.container.InputContainer) -> str:
    """FFmpeg's name of the container's format."""
    return container.format.name.split(",")[0]


def first_audio_stream(container: av.container.InputContainer, path: Path) -> av.AudioStream:
    """The stream that is read, set up so that FFmpeg leaves priming and padding to the reader.

    Raises:
      UserError: there is no audio stream, or FFmpeg has no decoder for it.
    """
    streams = container.streams.audio
    if not streams:
        raise UserError(f"{shown(path)}: holds no audio stream")
    stream = streams[0]
    if stream.codec_context is None:
        raise UserError(f"{shown(path)}: FFmpeg has no decoder for its audio")
    if len(streams) > 1:
        logging.info("%s: the first of its %d audio streams is read", shown(path), len(streams))
    if stream.codec_context.name == "flac":
        stream.codec_context.options = {"err_detect": "crccheck"}
    stream.codec_context.flags2 |= Flags2.skip_manual  # so that misplaced padding loses nothing
    return stream


def announced_samples(
    container: av.container.InputContainer, path: Path, frame_samples: int, sample_rate: int
) -> int:
    """The samples that the header announces; 0 where that is only a guess."""
    if format_of(container) == "mp3":
        return mp3_header.sample_count(path, frame_samples)
    if format_of(container) in GUESSED:
        return 0
    alone = len(container.streams) == 1
    if not container.streams.audio[0].duration and not alone:
        return 0  # the length of a film, not of its sound
    return max(0, round(announced_seconds(container) * sample_rate))


def announced_seconds(container: av.container.InputContainer) -> float:
    """The length in seconds from the header, or FFmpeg's guess; 0 if there is neither."""
    stream = container.streams.audio[0]
    if stream.duration:
        return float(stream.duration * clock(stream))
    return (container.duration or 0) / av.time_base


def clock(timed: av.AudioStream | av.AudioFrame) -> Fraction:
    """Seconds of one of its ticks; 0 where FFmpeg does not say, which puts everything at the beginning."""
    return timed.time_base or Fraction(0)


def packet_seconds(path: Path) -> float:
    """The length in seconds from the durations of all packets, without decoding them."""
    with opened(path) as container:
        stream = container.streams.audio[0]
        ticks = sum(packet.duration or 0 for packet in container.demux(stream))
        return float(ticks * clock(stream))


def opening_fault(path: Path) -> str:
    """What FFmpeg's log says about a file that cannot be opened; empty if it says nothing."""
    with _LOG:
        level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)  # the next file may have the same fault
        try:
            with av.logging.Capture() as lines:
                try:
                    opened(path).close()
                except Exception as error:  # noqa: BLE001 - it failed before, in the same way
                    logging.debug("%s: %s", path, error)
            messages = [one_line(text.strip()) for _, _, text in lines]
        finally:
            av.logging.set_level(level)
            av.logging.set_skip_repeated(skips)
    if any("moov atom not found" in message for message in messages):
        return "its index (moov) is missing: it was cut short, or never finished"
    return messages[0] if messages else ""
