"""Properties of TIFF files that OpenCV's decoder does not handle as wanted (TIFF 6.0; BigTIFF has wider numbers)."""

import struct
from collections.abc import Iterator

TIFF_STARTS = (b"II*\0", b"MM\0*")
_BIG_STARTS = (b"II+\0", b"MM\0+")
_FORMS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # types of whole numbers, all of which the library below OpenCV accepts
# Tags: BitsPerSample, SamplesPerPixel, PlanarConfiguration, ExtraSamples
_BITS, _CHANNELS, _PLANES, _EXTRA = 258, 277, 284, 338
_SEPARATE, _PLAIN_ALPHA = 2, 2
_MOST_CHANNELS = 64  # that are looked at


def with_colours_as_stored(data: bytes) -> bytes:
    """Return the content of a TIFF changed so that OpenCV does not multiply its colours by their alpha.

    The library below OpenCV does so if the file says that the colours are independent of alpha. In the result the
    meaning of the fourth channel is unspecified (0). Other content is returned as it is.

    Raises:
        ValueError: The file has channels of more than 8 bits in separate planes, of which OpenCV makes another image.
    """
    if not data.startswith((*TIFF_STARTS, *_BIG_STARTS)):
        return data
    order = "<" if data.startswith(b"II") else ">"
    bits, channels, is_separate = 1, 1, False
    alphas: list[slice] = []
    try:
        for tag, form, places in _properties(data, order):
            values = [struct.unpack_from(order + form, data, place)[0] for place in places]
            if tag == _BITS:  # some writers store one number for all channels
                bits, channels = max(values), max(channels, len(values))
            elif tag == _CHANNELS:
                channels = max(channels, values[0])
            elif tag == _PLANES:
                is_separate = values[0] == _SEPARATE
            else:
                found = zip(places, values, strict=True)
                alphas += [slice(place, place + places.step) for place, value in found if value == _PLAIN_ALPHA]
    except (struct.error, OverflowError):  # a damaged file: the decoder says so
        return data
    if is_separate and bits > 8 and channels > 1:
        raise ValueError(f"its channels of {bits} bits lie in separate planes, and must be interleaved")
    if not alphas:
        return data
    changed = bytearray(data)
    for place in alphas:
        changed[place] = bytes(place.stop - place.start)
    return bytes(changed)


def _properties(data: bytes, order: str) -> Iterator[tuple[int, str, range]]:
    """Yield tag, form of a value for `struct`, and places of the values of the first image's properties of use here.

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
        if tag in (_BITS, _CHANNELS, _PLANES, _EXTRA) and kind in _FORMS and count:
            place, length = position + 4 + struct.calcsize(number), struct.calcsize(order + _FORMS[kind])
            if length * count > struct.calcsize(number):  # too many for the entry, which says where they are
                (place,) = struct.unpack_from(order + number, data, place)
            yield tag, _FORMS[kind], range(place, place + length * min(count, _MOST_CHANNELS), length)
