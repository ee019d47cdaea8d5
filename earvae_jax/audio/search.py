"""Finds audio files by their names."""

from collections.abc import Sequence
from pathlib import Path

from earvae_jax.system.file_search import find_files

# The formats that FFmpeg and libsndfile read: audio, and films for their sound.
_NAMES = (
    "wav wave bwf rf64 bw64 w64 aif aiff aifc au snd caf flac fla oga ogg ogv ogx opus spx "
    "mp1 mp2 mp3 mpa mpga m2a aac adts loas ac3 eac3 ec3 ac4 dts dtshd mlp thd "
    "m4a m4b m4r mp4 m4v mov qt 3gp 3gpp 3g2 mj2 alac mka mkv webm weba wma wmv asf avi flv f4v f4a "
    "ts mts m2ts m2t mpg mpeg vob mxf nut rm ra ram rmvb amr awb ape tta tak wv mpc mpp shn "
    "dsf dff voc sf ircam nist sph paf svx 8svx iff avr xi sds oma aa3 at3 gsm vox"
)
EXTENSIONS = frozenset(f".{name}" for name in _NAMES.split())
_AMBIGUOUS = frozenset((".ts", ".iff", ".sf", ".ram", ".xi", ".nist"))  # other files have these names too
_MARKS = (b"FORM", b"\x64\xa3", b".RMF", b"http", b"Exte", b"NIST")


def find_audio(inputs: Sequence[str | Path], *, output_dir: Path | None = None) -> list[tuple[Path, Path]]:
    """Finds the audio files in folders and among files; see `find_files`."""
    return find_files(inputs, EXTENSIONS, "audio files", output_dir=output_dir, wanted=_is_audio)


def _is_audio(path: Path) -> bool:
    """Looks into a file whose name is ambiguous; one that cannot be opened is left for the reader to name."""
    if path.suffix.lower() not in _AMBIGUOUS:
        return True
    try:
        with path.open("rb") as file:
            start = file.read(189)
    except OSError:
        return True
    return start[:4] in _MARKS or start[:2] in _MARKS or (start[:1] == b"G" and start[188:189] == b"G")
