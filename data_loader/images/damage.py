"""Damage of image files that can be seen without decoding: decoders fill what is missing with grey, or say no name.

The walk through a file costs a small part of decoding it. Damage that leaves the structure of a JPEG whole, such as one
changed bit, cannot be seen like this.
"""

import re
import zlib
from typing import Literal

from data_loader.images.tiff import TIFF_STARTS

JPEG_START = b"\xff\xd8"
PNG_START = b"\x89PNG\r\n\x1a\n"
CUT_OFF = "it is cut off"

# Markers of ITU-T T.81, table B.1.
_HUFFMAN_TABLES, _END, _SCAN, _RESTART_INTERVAL = 0xC4, 0xD9, 0xDA, 0xDD
_BASELINE_FRAMES, _PROGRESSIVE_FRAME = (0xC0, 0xC1), 0xC2
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
# A scan ends with the image, or with the segments that may come before another scan.
_AFTER_SCAN = frozenset({_HUFFMAN_TABLES, 0xCC, _END, _SCAN, 0xDB, 0xDC, _RESTART_INTERVAL, 0xFE, *range(0xE0, 0xF0)})
# In the data of a scan, 0xFF is followed by 0 (it is data) or D0 to D7 (a restart); all else ends the scan.
_MARK = re.compile(rb"\xff(?![\x00\xff])")
_SCAN_END = re.compile(rb"\xff(?![\x00\xd0-\xd7\xff])")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_ZEROS = bytes(64)  # a disk sector that was never written, or a part of a download that never came
_RIFF_HEADER = 8
_LARGEST_RATIO = 1032  # of deflate, https://zlib.net/zlib_tech.html


class _Damaged(Exception):
    """The content of a file is damaged; the message says how."""


def find_damage(data: bytes) -> str | None:
    """Return what is wrong with the content of an image file, None if nothing is seen."""
    try:
        if data.startswith(JPEG_START):
            _check_jpeg(data)
        elif data.startswith(PNG_START):
            _check_png(data)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            if len(data) < _RIFF_HEADER + int.from_bytes(data[4:8], "little"):
                raise _Damaged(CUT_OFF)
        elif data.startswith(TIFF_STARTS):
            order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
            if int.from_bytes(data[4:8], order) + 2 > len(data):  # the place of the list of properties
                raise _Damaged(CUT_OFF)
        elif not any(data):
            raise _Damaged("it holds nothing but zeros" if data else "it is empty")
    except _Damaged as damage:
        return str(damage)
    return None


def _check_jpeg(data: bytes) -> None:
    """Walk through the segments of a JPEG to its end mark."""
    first_symbols: dict[int, int] = {}  # class and number of a Huffman table -> symbol of its code of zeros
    frame = pixels = interval = scanned = 0
    position = len(JPEG_START)
    while True:
        if scanned and data[position : position + 1] not in (b"\xff", b""):
            raise _Damaged(f"it is damaged at byte {position}")  # only before the first scan may anything lie between
        marker, position = _next_marker(data, position)
        if marker == _END:
            break
        if marker in _WITHOUT_LENGTH:
            continue
        end = position + int.from_bytes(data[position : position + 2], "big")
        if end > len(data):
            raise _Damaged(CUT_OFF)
        segment, position = data[position + 2 : end], max(end, position + 2)
        if marker == _HUFFMAN_TABLES:
            first_symbols |= _first_symbols(segment)
        elif marker == _RESTART_INTERVAL:
            interval = int.from_bytes(segment[:2], "big")
        elif 0xC0 <= marker <= 0xCF:
            frame = marker
            pixels = int.from_bytes(segment[1:3], "big") * int.from_bytes(segment[3:5], "big")
        elif marker == _SCAN:
            start, position = position, _check_scan(data, position, has_restarts=interval > 0)
            scanned += position - start
            # Zeros up to the end of a scan are harmless: some cameras fill it up.
            zeros = data.find(_ZEROS, start, start + len(data[start:position].rstrip(b"\0")))
            if zeros >= 0 and not _may_be_zeros(segment, frame, first_symbols):
                raise _Damaged(f"it is damaged at byte {zeros} (zeros in the place of data)")
    # A block of 8x8 pixels takes one bit or more.
    if frame in (*_BASELINE_FRAMES, _PROGRESSIVE_FRAME) and scanned < pixels // (64 * 8):
        raise _Damaged(f"it is cut off or damaged: {scanned} bytes cannot hold {pixels} pixels")


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    """Return the next marker and the position behind it; bytes between segments are skipped, as decoders do."""
    start = data.find(b"\xff", position)
    while 0 <= start < len(data) - 1 and data[start + 1] in (0x00, 0xFF):
        start = data.find(b"\xff", start + 1)
    if start < 0 or start + 1 >= len(data):
        raise _Damaged(CUT_OFF)
    return data[start + 1], start + 2


def _check_scan(data: bytes, start: int, *, has_restarts: bool) -> int:
    """Return the position at which the data of a scan end."""
    found = _MARK.search(data, start)
    has_marks = found is not None and 0xD0 <= data[min(found.start() + 1, len(data) - 1)] <= 0xD7
    if has_marks:
        found = _SCAN_END.search(data, start)
    if found is None or found.start() + 1 >= len(data):
        raise _Damaged(CUT_OFF)
    end = found.start()
    if data[end + 1] not in _AFTER_SCAN:
        raise _Damaged(f"it is damaged at byte {end}")
    # Most scans have no restarts: those are looked for only behind the first, which saves half of the time.
    marks = [data[each.start() + 1] & 7 for each in _RESTART.finditer(data, start, end)] if has_marks else []
    if (marks and not has_restarts) or any(mark != number % 8 for number, mark in enumerate(marks)):
        raise _Damaged("it is damaged: its restart marks are out of order")
    return end


def _first_symbols(segment: bytes) -> dict[int, int]:
    """Return the symbol of the first code, which consists of zeros, of each Huffman table of a segment."""
    symbols, position = {}, 0
    while position + 17 <= len(segment):
        count = sum(segment[position + 1 : position + 17])
        if count and position + 17 < len(segment):
            symbols[segment[position]] = segment[position + 17]
        position += 17 + count
    return symbols


def _may_be_zeros(header: bytes, frame: int, first_symbols: dict[int, int]) -> bool:
    """Return whether blank areas could make a scan hold a long run of zeros.

    Zeros are the first code of each table, again and again: a blank block if that code means "no difference" and "end
    of block", and an absurd image otherwise.
    """
    count = header[0] if header else 0
    tables = header[2 : 1 + 2 * count : 2]
    if len(header) < 4 + 2 * count or frame not in (*_BASELINE_FRAMES, _PROGRESSIVE_FRAME):
        return True
    is_first_pass = header[3 + 2 * count] >> 4 == 0
    is_dc = header[1 + 2 * count] == 0
    if frame == _PROGRESSIVE_FRAME and is_dc and not is_first_pass:
        return True  # one bit of each block, without a code
    dc_is_blank = all(first_symbols.get(each >> 4, 0) == 0 for each in tables)
    ac_symbols = [first_symbols.get(0x10 | (each & 0x0F), 0) for each in tables]
    if frame == _PROGRESSIVE_FRAME:
        # Blocks of a pass end with a run of blank ones: any symbol without bits of a value.
        return dc_is_blank if is_dc else all(symbol & 0x0F == 0 for symbol in ac_symbols)
    return dc_is_blank and not any(ac_symbols)


def _check_png(data: bytes) -> None:
    """Walk through the chunks of a PNG and check their sums (PNG specification, 5.3)."""
    position, compressed, kind = len(PNG_START), 0, b""
    while kind != b"IEND":
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        if len(kind) < 4 or end + 4 > len(data):
            raise _Damaged(CUT_OFF)
        if zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise _Damaged(f"it is damaged at byte {position} (the check sum of {kind.decode('latin-1')!a} is wrong)")
        compressed += end - position - 8 if kind == b"IDAT" else 0
        position = end + 4
    width, height = (int.from_bytes(data[place : place + 4], "big") for place in (16, 20))
    if compressed * _LARGEST_RATIO < height * (width * data[24] // 8):
        raise _Damaged(f"it is cut off or damaged: {compressed} bytes cannot hold {height * width} pixels")
