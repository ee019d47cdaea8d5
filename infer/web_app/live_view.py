"""What is seen while a song is computed: waveforms and spectrograms that grow, and a bar with words."""

import base64
import html

import numpy as np
from jaxtyping import Float

from earvae_jax.infer.evaluation import pictures

_COLUMNS = 600  # of a picture
_HALF = pictures.FRAME // 2


class Strip:
    """Waveform and spectrogram of audio [T, C] that arrives in blocks, over the length that it will have.

    Args:
      samples: the expected length; what comes after it is not drawn.
    """

    def __init__(self, label: str, samples: int, sample_rate: int):
        self.label = label
        self._sample_rate = sample_rate
        self._centres = np.linspace(0, max(samples - 1, 1), _COLUMNS).astype(int)
        self._edges = np.linspace(0, samples, _COLUMNS + 1)
        self._least, self._most = np.full(_COLUMNS, np.inf), np.full(_COLUMNS, -np.inf)
        self._level = np.full((pictures.HEIGHT, _COLUMNS), -np.inf)
        self._columns = 0  # of the spectrogram that are done
        self._read = 0
        self._held: np.ndarray | None = None  # the last samples, in which the next column begins
        self._html = ""

    def add(self, block: Float[np.ndarray, "T C"]) -> None:
        """Takes the next block."""
        self._envelope(block)
        if self._held is None:
            self._held = np.zeros((_HALF, block.shape[1]), np.float32)  # before the first sample
        self._held = np.concatenate([self._held, np.asarray(block, np.float32)])
        self._read += len(block)
        self._draw()

    def end(self) -> None:
        """Draws the columns that waited for more audio."""
        if self._held is not None:
            self._held = np.pad(self._held, ((0, _HALF), (0, 0)))
            self._draw(_HALF)

    def _draw(self, silence: int = 0) -> None:
        """Draws the columns whose frames are whole; `silence` samples follow those that were read."""
        assert self._held is not None
        begin = self._read + silence - len(self._held)
        whole = int(np.searchsorted(self._centres, self._read + silence - _HALF, side="right"))
        if whole > self._columns:
            starts = self._centres[self._columns : whole] - _HALF - begin
            power = pictures.log_frequency_power(self._held, starts, self._sample_rate)
            self._level[:, self._columns : whole] = pictures.decibels(power)
            self._columns = whole
        self._held = self._held[-pictures.FRAME :]
        self._html = ""

    def html(self) -> str:
        """The strip as HTML; drawn once for each state."""
        if not self._html:
            self._html = (
                f"<figure><figcaption>{html.escape(self.label)}</figcaption>{self._waveform()}"
                f'<img alt="Spectrogram: {html.escape(self.label.lower())}" src="data:image/png;base64,'
                f'{base64.b64encode(self._picture()).decode("ascii")}"></figure>'
            )
        return self._html

    def _envelope(self, block: np.ndarray) -> None:
        if not len(block):
            return
        places = np.searchsorted(self._edges, np.arange(self._read, self._read + len(block)), "right") - 1
        inside = places < _COLUMNS
        places, block = places[inside], block[inside]
        np.minimum.at(self._least, places, block.min(axis=1))
        np.maximum.at(self._most, places, block.max(axis=1))

    def _waveform(self) -> str:
        drawn = np.flatnonzero(np.isfinite(self._most))
        upper = [f"{x},{_place(self._most[x])}" for x in drawn]
        lower = [f"{x},{_place(self._least[x])}" for x in drawn[::-1]]
        return (
            f'<svg viewBox="0 0 {_COLUMNS} 100" preserveAspectRatio="none" role="img" '
            f'aria-label="Waveform: {html.escape(self.label.lower())}">'
            f'<polygon points="{" ".join(upper + lower)}"/></svg>'
        )

    def _picture(self) -> bytes:
        loudest = max(float(self._level.max()), pictures.LEAST_LOUD)
        return pictures.heat(np.maximum(self._level, loudest - pictures.DYNAMIC_RANGE), loudest)


def live_view(strips: list[Strip], stage: str, share: float | None) -> str:
    """The strips under a bar that says how far the work is."""
    return f'<div class="live">{bar(stage, share)}{"".join(strip.html() for strip in strips)}</div>'


def bar(stage: str, share: float | None) -> str:
    """What is done now and how much of it, in words and as a bar."""
    amount = "" if share is None else f' value="{share:.3f}"'
    percent = "" if share is None else f" {share:.0%}"
    return f'<p class="stage" role="status">{html.escape(stage)}{percent}</p><progress{amount}></progress>'


def told(message: str, *, kind: str = "note") -> str:
    """A line about the song; `kind` is "note" or "error"."""
    return f'<p class="{kind}" role="{"alert" if kind == "error" else "status"}">{html.escape(message)}</p>'


def _place(value: float) -> str:
    return f"{50 - 48 * min(max(value, -1.0), 1.0):.1f}"
