"""Channels: which loudspeaker each one is for, and how they are mixed to mono or stereo."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from earvae_jax.errors import UserError

_HALF_POWER = math.sqrt(0.5)  # −3 dB

# The gains of each loudspeaker, by FFmpeg's name, to left and right. ITU-R BS.775 (table 2) mixes 3/2 stereo
# down so: the centre at −3 dB to both, surrounds at −3 dB to their side, low-frequency effects to none.
# A loudspeaker that is not in the recommendation counts as the nearest one that is.
_TO_STEREO = {
    "FL": (1.0, 0.0),
    "FR": (0.0, 1.0),
    "FC": (_HALF_POWER, _HALF_POWER),
    "LFE": (0.0, 0.0),
    "LFE2": (0.0, 0.0),
    "BC": (0.5, 0.5),  # a single surround: −3 dB twice
    "TC": (0.5, 0.5),
    "TFC": (_HALF_POWER, _HALF_POWER),
    "TBC": (0.5, 0.5),
    "BFC": (_HALF_POWER, _HALF_POWER),
    "DL": (1.0, 0.0),
    "DR": (0.0, 1.0),
    "FLC": (1.0, 0.0),
    "FRC": (0.0, 1.0),
    **dict.fromkeys(("BL", "SL", "TFL", "TBL", "TSL", "SDL", "WL", "BFL", "SSL"), (_HALF_POWER, 0.0)),
    **dict.fromkeys(("BR", "SR", "TFR", "TBR", "TSR", "SDR", "WR", "BFR", "SSR"), (0.0, _HALF_POWER)),
}
# The usual order of channels, for files that do not state one.
_USUAL = {
    3: ("FL", "FR", "FC"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}


def to_channels(audio: Float[np.ndarray, "T C"], channels: int) -> Float[np.ndarray, "T C2"]:
    """Copies mono to every channel, or averages the channels to mono.

    Raises:
      UserError: the numbers of channels differ and neither is 1.
    """
    given = audio.shape[1]
    if given == channels:
        return audio
    if given == 1:
        return np.repeat(audio, channels, axis=1)
    if channels == 1:
        return np.mean(audio, axis=1, keepdims=True)
    raise UserError(f"{given} channels; the model takes {channels}: mix it down first")


def stereo_matrix(channels: int, names: Sequence[str] = ()) -> Float[np.ndarray, "C 2"] | None:
    """The gains that mix more than two channels down to left and right (ITU-R BS.775, table 2).

    Args:
      names: FFmpeg's names of the loudspeakers; if any is unknown, the usual order of so many channels holds.

    Returns:
      None where neither says which loudspeakers the channels are for.
    """
    if len(names) != channels or not all(name in _TO_STEREO for name in names):
        names = _USUAL.get(channels, ())
    return np.array([_TO_STEREO[name] for name in names], np.float32) if names else None
