"""Reads audio through FFmpeg (PyAV): every compressed format, video, and what libsndfile refuses."""

# This file is long because one pass over the frames finds padding, gaps, damage and changes of form, and
# each of these depends on where the others left the stream.

import struct
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from absl import logging
from av.sidedata.sidedata import Type as SideData
from jaxtyping import Float

from earvae_jax.audio import flac_frames, ogg_pages
from earvae_jax.audio.channels import to_channels
from earvae_jax.audio.damage import Damage
from earvae_jax.audio.ffmpeg_container import (
    GUESSED,
    WITHOUT_CLOCK,
    announced_samples,
    announced_seconds,
    clock,
    first_audio_stream,
    format_of,
    opened,
    packet_seconds,
)
from earvae_jax.audio.resampling import Resampler
from earvae_jax.borders import shown
from earvae_jax.errors import UserError

_TAGS = (b"ID3", b"TAG", b"APE", b"LYR")  # they stand between the parts of joined files
_RUN_UP = 0.25  # seconds decoded before a place that is sought: a decoder needs the frames before it
_SMALLEST_GAP = 0.1  # seconds; a smaller gap between packets is a loss only if there are other signs of one
_LONGEST_GAP = 60.0  # seconds; a longer gap that also passes the announced end is not believed
_MOST_FAILURES = 100  # of the demuxer in a row


class FfmpegFile:
    """Reads the first audio stream of a file as float32, at the rate and in the channels of its beginning.

    Priming and padding that the file declares are removed. Silence replaces missing packets if the file
    states the time of the next one. Chained streams are read one after the other.

    Attributes:
      sample_rate: in Hz.
      channels: number of channels.
      layout: FFmpeg's names of their loudspeakers.
      announced: samples that the file announces; 0 if it states no length.
      damage: the faults found so far.

    Raises:
      UserError: the file holds no audio stream, or nothing in it can be decoded.
      Exception: whatever FFmpeg and PyAV raise for a file that they cannot open.
    """

    def __init__(self, path: Path):
        self._path = path
        self._container = opened(path)
        try:
            self._stream = first_audio_stream(self._container, path)
            self._codec = self._stream.codec_context
            self._is_mpeg = self._codec.name.startswith(("mp1", "mp2", "mp3"))
            self._format = format_of(self._container)
            self._start = (self._stream.start_time or 0) * float(clock(self._stream))
            self.damage = Damage()
            self._next_time: float | None = None  # at which the next frame has to begin, in its samples
            self._restart()
            first = next(self._frames, None)
            if first is None:
                raise UserError(f"{shown(path)}: holds no samples that can be decoded")
        except BaseException:
            self._container.close()
            raise
        frame, packet = first
        self.sample_rate: int = self._rate(frame)
        self.layout = tuple(channel.name for channel in frame.layout.channels)
        self.channels: int = frame.layout.nb_channels
        self._now = self.sample_rate, self.channels
        self._is_plain = self._format in GUESSED and frame.format.name == "fltp"
        self._block_size = frame.samples
        self.announced = announced_samples(self._container, path, self._block_size, self.sample_rate)
        if self._codec.name == "flac" and self.announced:
            self._next_time = 0.0  # so that a loss before the first frame shows
        self._take(frame, packet)

    def read(self, frames: int) -> Float[np.ndarray, "T C"]:
        """The next `frames` samples, fewer only at the end of the stream."""
        result = np.empty((frames, self.channels), np.float32)
        count = 0
        while count < frames:
            if not self._ready:
                copied, entry = self._copy(result[count:])
                count += copied
                if not self._advance(entry):
                    break
                continue
            block = self._ready.popleft()
            part = block[: frames - count]
            result[count : count + len(part)] = part
            count += len(part)
            if len(part) < len(block):
                self._ready.appendleft(block[len(part) :])
        return result[:count]

    def seek(self, sample: int) -> None:
        """Moves to a sample, or near it if the file's times are not exact."""
        before = max(0.0, sample / self.sample_rate - _RUN_UP)
        self._container.seek(int((self._start + before) / clock(self._stream)), stream=self._stream)
        self._restart()
        first = next(self._frames, None)
        if first is None:
            return
        frame, packet = first
        here = round(before * self.sample_rate)
        time, exact = self._time(frame, packet, self.sample_rate)
        if exact and time is not None:
            here = int(time)
        elif frame.pts is not None:
            here = round((float(frame.pts * clock(frame)) - self._start) * self.sample_rate)
        skip = self._declared(frame)[0]
        self._take(frame, packet)
        self.read(max(0, sample - here - skip))

    def count(self) -> int:
        """The approximate number of samples; if none is announced, from the durations of the packets."""
        if self.announced:
            return self.announced
        return int((announced_seconds(self._container) or packet_seconds(self._path)) * self.sample_rate)

    def close(self) -> None:
        """Releases the file."""
        self._container.close()

    def _restart(self) -> None:
        self._frames = self._decoded()
        self._ready: deque[np.ndarray] = deque()
        self._next_time = None
        self._miscounted = 0
        self._skip = 0  # samples of priming still to remove
        self._padding = 0  # samples to remove where the stream ends
        self._withheld: np.ndarray | None = None
        self._resampler: Resampler | None = None
        self._damaged = False  # whether a packet was damaged since the last frame
        self._produced = 0
        self._good_bytes = self._lost_bytes = 0
        self._last_byte: int | None = None  # where the last packet that could be decoded begins

    def _decoded(self) -> Iterator[tuple[av.AudioFrame, av.Packet | None]]:
        """All frames that can be decoded; the first frame of a packet comes with the packet."""
        failures = 0
        while failures < _MOST_FAILURES:
            try:
                for packet in self._container.demux(self._stream):
                    failures = 0
                    try:
                        frames = packet.decode()
                    except MemoryError:
                        raise
                    except Exception as error:  # noqa: BLE001 - any error: the next packet may be whole
                        self._lose(packet, error)
                        continue
                    self._good_bytes += packet.size
                    self._last_byte = self._last_byte if packet.pos is None else packet.pos
                    for frame in frames:
                        yield frame, packet if frame is frames[0] else None
                return
            except (UserError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 - any error: the demuxer goes on after it
                logging.debug("%s: %s", self._path, error)
                failures += 1
                self._damaged = True
        self.damage.packets += 1

    def _lose(self, packet: av.Packet, error: Exception) -> None:
        logging.debug("%s: %s", self._path, error)
        if bytes(memoryview(packet)[:3]).startswith(_TAGS):
            return
        self.damage.packets += 1
        self._damaged = True
        self._lost_bytes += packet.size

    def _copy(
        self, result: Float[np.ndarray, "T C"]
    ) -> tuple[int, tuple[av.AudioFrame, av.Packet | None] | None]:
        """Copies ordinary frames; returns the number of their samples, and the first other frame.

        An MP3 song has ten thousand frames, and the work on each matters as much as decoding it.
        """
        as_begun = self._now == (self.sample_rate, self.channels)
        if not (self._is_plain and as_begun) or self._skip or self._padding:
            return 0, next(self._frames, None)
        count, entry = 0, None
        for entry in self._frames:
            frame = entry[0]
            planes, length = frame.planes, frame.samples
            special = len(frame.side_data) or frame.is_corrupt or len(planes) != self.channels
            if special or count + length > len(result) or self._rate(frame) != self.sample_rate:
                break
            for channel, plane in enumerate(planes):
                samples = np.frombuffer(memoryview(plane), np.float32, length)
                result[count : count + length, channel] = samples
            count += length
        else:
            entry = None
        self._produced += count
        return count, entry

    def _advance(self, entry: tuple[av.AudioFrame, av.Packet | None] | None) -> bool:
        """Makes the samples of a frame ready; false at the end."""
        if entry is not None:
            self._take(*entry)
            return True
        self._estimate_loss()
        rest, self._resampler = self._resampler, None
        if rest is not None:
            self._put(rest(np.zeros((0, self.channels), np.float32), last=True))
            return bool(self._ready)
        return False

    def _estimate_loss(self) -> None:
        """Estimates the seconds that an Ogg lost at its end, or a raw stream anywhere."""
        if self._format == "ogg" and self._last_byte is not None:
            clock = 48_000 if self._codec.name in ("opus", "libopus") else self._now[0]
            lost = ogg_pages.samples_passed_over(self._path, self._last_byte) / clock
            if lost:
                self.damage.packets += 1
                self.damage.left_out = lost
            return
        # Undecoded bytes, at the byte rate of the others.
        if not (self._format in GUESSED and self.damage.packets and self._good_bytes):
            return
        if self._format == "aac":  # its demuxer skips what does not look like a packet
            self._lost_bytes += max(0, self._container.size - self._good_bytes - self._lost_bytes)
        seconds = self._produced / self.sample_rate
        self.damage.left_out = seconds * self._lost_bytes / self._good_bytes

    def _take(self, frame: av.AudioFrame, packet: av.Packet | None) -> None:
        if frame.is_corrupt:
            self.damage.packets += 1
        audio = _samples(frame)
        rate = self._rate(frame)
        form = rate, audio.shape[1]
        if form != self._now:
            self._change(form)
        gap = self._gap(frame, packet, rate)
        if gap:
            self.damage.silence += gap / rate
            self._give(np.zeros((gap, audio.shape[1]), np.float32))
        skip, discard = self._declared(frame)
        self._skip += skip
        if self._skip:
            taken = min(self._skip, len(audio))
            self._skip -= taken
            audio = audio[taken:]
        if self._format == "mov" and not discard and frame.duration:
            # Older FFmpeg states how long the last frame is but does not cut it.
            lasts = round(float(frame.duration * clock(frame)) * rate)
            discard = max(0, frame.samples - lasts)
        if discard or self._padding:
            audio = self._without_padding(audio, discard)
        self._give(audio)

    def _declared(self, frame: av.AudioFrame) -> tuple[int, int]:
        """The samples of priming and of padding that the file declares for a frame."""
        if not len(frame.side_data):
            return 0, 0
        data = frame.side_data.get(SideData.SKIP_SAMPLES)  # type: ignore[call-overload] # its stub says names
        skip, discard = struct.unpack("<II", bytes(data)[:8]) if data is not None else (0, 0)
        if self._format == "ogg":
            # In a Vorbis stream of one page, FFmpeg starts the priming at time 0 and not before it. All times
            # are late by its length, and FFmpeg counts it as padding once more at the end.
            if skip and frame.pts is not None:
                before = round((self._start - float(frame.pts * clock(frame))) * frame.sample_rate)
                self._miscounted = max(0, skip - max(0, before))
            discard = max(0, discard - self._miscounted)
        return skip, discard

    def _without_padding(self, audio: Float[np.ndarray, "T C"], discard: int) -> Float[np.ndarray, "T C"]:
        """Removes padding: in Ogg at the end of each link, in other formats at the end of the stream."""
        if self._format == "ogg":
            return audio[: max(0, len(audio) - discard)]
        if self._withheld is not None:
            audio = np.concatenate([self._withheld, audio])
        # An MP3's header may be wrong about where the file ends, but its encoder did add so much padding.
        self._padding = max(self._padding, discard) if self._format == "mp3" else discard
        kept = max(0, len(audio) - self._padding)
        self._withheld = audio[kept:]
        return audio[:kept]

    def _gap(self, frame: av.AudioFrame, packet: av.Packet | None, rate: int) -> int:
        """Samples that are missing before a frame, by the times that the file states."""
        expected, damaged, self._damaged = self._next_time, self._damaged, False
        time, exact = self._time(frame, packet, rate)
        if time is None:
            if expected is not None:
                self._next_time = expected + frame.samples
            return 0
        self._next_time = time + frame.samples
        if expected is None:
            return 0
        gap = time - expected
        if gap < -frame.samples and self._format in ("ogg", "flac"):
            self.announced = 0  # a chained stream, of which the header announced one link
        smallest = max(_SMALLEST_GAP * rate, 2 * frame.samples)
        if exact or damaged:
            smallest = 1 if exact else frame.samples / 2
        left = (self.announced - self._produced) * rate / self.sample_rate + rate
        if not smallest <= gap <= max(left, _LONGEST_GAP * rate):
            return 0
        if damaged and clock(frame) * rate > 1:  # the clock rounds, and whole packets are missing
            gap = round(gap / frame.samples) * frame.samples
        return round(gap)

    def _time(self, frame: av.AudioFrame, packet: av.Packet | None, rate: int) -> tuple[float | None, bool]:
        """When a frame begins, in samples at its rate, and whether that is exact."""
        if self._codec.name == "flac":
            if packet is None:  # a damaged packet may hold more frames than the one that it names
                return None, False
            return flac_frames.first_sample(bytes(memoryview(packet)[:16]), self._block_size), True
        if self._format in WITHOUT_CLOCK or frame.pts is None:
            return None, False
        return float(frame.pts * clock(frame)) * rate, False

    def _change(self, form: tuple[int, int]) -> None:
        """Handles a change of rate or channels inside the stream."""
        if self._withheld is not None:
            self._give(self._withheld)
            self._withheld = None
        if self._resampler is not None:
            self._put(self._resampler(np.zeros((0, self.channels), np.float32), last=True))
            self._resampler = None
        (rate, channels), (old_rate, old_channels) = form, self._now
        self.damage.changes.append(
            f"{old_rate} Hz in {old_channels} to {rate} Hz in {channels} channels"
            if channels != old_channels and rate != old_rate
            else f"{old_rate} to {rate} Hz"
            if rate != old_rate
            else f"{old_channels} to {channels} channels"
        )
        self._now = form
        self._next_time = None
        if rate != self.sample_rate:
            self._resampler = Resampler(rate, self.sample_rate, self.channels)

    def _give(self, audio: Float[np.ndarray, "T C2"]) -> None:
        """Converts samples from the current rate and channels to those of the beginning."""
        if audio.shape[1] != self.channels:
            audio = to_channels(to_channels(audio, 1) if audio.shape[1] > 2 else audio, self.channels)
        self._put(audio if self._resampler is None else self._resampler(audio))

    def _rate(self, frame: av.AudioFrame) -> int:
        """A frame's rate in Hz; FFmpeg's MPEG decoders label a frame with the rate of the one before."""
        return self._codec.sample_rate if self._is_mpeg else frame.sample_rate

    def _put(self, audio: Float[np.ndarray, "T C"]) -> None:
        if len(audio):
            self._produced += len(audio)
            self._ready.append(audio)


def _samples(frame: av.AudioFrame) -> Float[np.ndarray, "T C"]:
    """A frame as float32, full scale at 1."""
    array = frame.to_ndarray()
    array = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128) / 128
    if array.dtype.kind == "i":
        return array * np.float32(2.0 ** (1 - 8 * array.dtype.itemsize))
    return array.astype(np.float32, copy=False)
