"""The position that the header of a FLAC frame states (RFC 9639, section 9.1)."""


def first_sample(frame: bytes, block_size: int) -> int | None:
    """The number of the frame's first sample; None if the bytes are not a frame.

    Args:
      block_size: samples per frame, for files in which all frames have the same number.
    """
    if len(frame) < 6 or frame[0] != 0xFF or frame[1] & 0xFE != 0xF8:
        return None
    number = _coded_number(frame[4:11])
    if number is None:
        return None
    numbers_samples = frame[1] & 1
    return number if numbers_samples else number * block_size


def _coded_number(data: bytes) -> int | None:
    """A number in the coding of UTF-8, extended to seven bytes."""
    first = data[0]
    if first < 0x80:
        return first
    length = 8 - (first ^ 0xFF).bit_length()
    if not 2 <= length <= 7 or len(data) < length:
        return None
    number = first & (0x7F >> length)
    for byte in data[1:length]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    return number
