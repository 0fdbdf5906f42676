"""Properties of TIFF files that OpenCV's decoder does not handle as wanted (TIFF 6.0; BigTIFF has wider numbers)."""

import struct
from collections.abc import Iterator

TIFF_STARTS = (b"II*\0", b"MM\0*")
_BIG_STARTS = (b"II+\0", b"MM\0+")
_SHORT = 3  # type of a value: 16 bits
_BITS, _PLANES, _EXTRA = 258, 284, 338  # tags: BitsPerSample, PlanarConfiguration, ExtraSamples
_SEPARATE, _UNSPECIFIED, _PLAIN_ALPHA = 2, 0, 2
_MOST_CHANNELS = 64  # that are looked at


def with_colours_as_stored(data: bytes) -> bytes:
    """Return the content of a TIFF changed so that OpenCV does not multiply its colours by their alpha.

    The library below OpenCV does so if the file says that the colours are independent of alpha. In the result the
    meaning of the fourth channel is unspecified. Other content is returned as it is.

    Raises:
        ValueError: The file has channels of more than 8 bits in separate planes, of which OpenCV makes another image.
    """
    if not data.startswith((*TIFF_STARTS, *_BIG_STARTS)):
        return data
    order = "<" if data.startswith(b"II") else ">"
    bits, channels, is_separate, alphas = 1, 1, False, []
    try:
        for tag, places in _properties(data, order):
            values = [struct.unpack_from(f"{order}H", data, place)[0] for place in places]
            if tag == _BITS:
                bits, channels = max(values), len(values)
            elif tag == _PLANES:
                is_separate = values[0] == _SEPARATE
            else:
                alphas += [place for place, value in zip(places, values, strict=True) if value == _PLAIN_ALPHA]
    except (struct.error, OverflowError):  # a damaged file: the decoder says so
        return data
    if is_separate and bits > 8 and channels > 1:
        raise ValueError(f"its channels of {bits} bits lie in separate planes, and must be interleaved")
    if not alphas:
        return data
    changed = bytearray(data)
    for place in alphas:
        struct.pack_into(f"{order}H", changed, place, _UNSPECIFIED)
    return bytes(changed)


def _properties(data: bytes, order: str) -> Iterator[tuple[int, range]]:
    """Yield tag and places of the values of those properties of the first image that matter here.

    Raises:
        struct.error: The file ends before them.
        OverflowError: A place is beyond all files.
    """
    is_big = data.startswith(_BIG_STARTS)
    count_form, number, entry_bytes = ("Q", "Q", 20) if is_big else ("H", "I", 12)
    (start,) = struct.unpack_from(order + number, data, 8 if is_big else 4)
    (entries,) = struct.unpack_from(order + count_form, data, start)
    first = start + struct.calcsize(count_form)
    for position in range(first, first + entries * entry_bytes, entry_bytes):
        tag, kind, count = struct.unpack_from(f"{order}HH{number}", data, position)
        if tag in (_BITS, _PLANES, _EXTRA) and kind == _SHORT and count:
            place = position + 4 + struct.calcsize(number)
            if 2 * count > struct.calcsize(number):  # too many for the entry, which says where they are
                (place,) = struct.unpack_from(order + number, data, place)
            yield tag, range(place, place + 2 * min(count, _MOST_CHANNELS), 2)
