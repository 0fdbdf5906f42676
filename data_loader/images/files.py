"""Files of images and masks, decoded and checked, and lists of such files; every error names the file."""

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from data_loader.images.masks import (
    black_and_white,
    grey_of_palette,
    is_colored,
    lossy_kind,
    mask_labels,
    require_opaque_object,
)
from utils.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_GREY, _PNG_PALETTE = 0, 3  # colour types of the PNG specification, 11.2.2
_EXIF_ORIENTATION = 0x0112
_EXIF_MARKS = (b"eXIf", b"EXIF", b"Exif")  # of PNG, WebP and others
_UNKNOWN_KIND = "it is not an image of a known kind"
_TURNED_BY_A_QUARTER = frozenset({5, 6, 7, 8})
_PATHS_SHOWN = 5
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_image(path: str | Path, *, in_channels: int = 3) -> np.ndarray:
    """Read a photo: 8 or 16 bits, grey or colour, turned as its EXIF orientation says.

    Args:
        path: File.
        in_channels: With 4, an image of four channels is read with all of them; otherwise a fourth (alpha) is dropped.

    Returns:
        (h, w, 3) uint8 or uint16, RGB; grey images have three equal channels. (h, w, 4) if asked for.

    Raises:
        DataError: The file is missing, no image, cut off, or lacks the fourth channel.
    """
    data = _read_bytes(path)
    # IMREAD_UNCHANGED alone retains the fourth channel; it does not turn the image by EXIF.
    flags = cv2.IMREAD_UNCHANGED if in_channels == 4 else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    image = _decode(data, path, flags)
    if in_channels == 4:
        image = _upright(image, data)
        if image.ndim != 3 or image.shape[2] != 4:
            raise DataError(f"{path} has no fourth channel, but in_channels is 4. Set in_channels to 3 or 1.")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA))
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def read_mask(path: str | Path, *, is_binary: bool = False, ignore_index: int | None = None) -> np.ndarray:
    """Read a mask of class ids, turned as its EXIF orientation says; a palette's indices are the ids.

    Args:
        path: File.
        is_binary: Black and white: divided at half the range into 0 and 255, whatever the format; a palette is read by
            its colours, and the file may be lossy, as a JPEG.
        ignore_index: With `is_binary`, a label that counts nowhere; the file must then not be lossy.

    Returns:
        (h, w) uint8 or uint16.

    Raises:
        DataError: The file is missing, no image, cut off, has colours or fractions instead of ids, a shape in its alpha
            channel alone, or is lossy.
    """
    data = _read_bytes(path)
    kind = lossy_kind(data)
    if kind is not None and (not is_binary or ignore_index is not None):
        # Values at edges are changed: other ids than black and white cannot be restored.
        raise DataError(
            f"The mask {path} is a {kind}. {kind} changes labels: save masks as PNG. Only masks of 0 and 255 may be "
            f"{kind}, with binary_masks true and no ignore_index."
        )
    pixels = _mask_pixels(data, path, kind)
    if isinstance(pixels, _PalettePixels):
        grey = pixels.indices
        mask = mask_labels(grey_of_palette(grey, pixels.colors, path, ignore_index) if is_binary else grey, path)
        alpha = None
    else:
        alpha = pixels[..., -1] if pixels.ndim == 3 and pixels.shape[2] in (2, 4) else None
        if kind is not None and pixels.ndim == 3 and pixels.shape[2] >= 3 and not is_colored(pixels[..., :3]):
            pixels[..., :3] = pixels[..., 1:2]  # green is the nearest to the grey of a lossy file
        mask = mask_labels(pixels, path)
    if is_binary:
        mask = black_and_white(mask, path, kind=kind, ignore_index=ignore_index)
        if alpha is not None:
            require_opaque_object(mask, alpha, path)
    return mask if kind == "JPEG" else _upright(mask, data)  # OpenCV has turned a JPEG


class _PalettePixels(NamedTuple):
    """Indices (h, w) uint8, and red, green and blue of each index, one after the other."""

    indices: np.ndarray
    colors: list[int]


def _mask_pixels(data: bytes, path: str | Path, kind: str | None) -> np.ndarray | _PalettePixels:
    """Decode a mask without any conversion of its values, (h, w) or (h, w, C), channels in any order but alpha last."""
    if kind == "JPEG":
        return _decode(data, path, cv2.IMREAD_COLOR)
    # Bits per channel and colour type of a PNG are in its header chunk.
    bits, colour_type = (data[24], data[25]) if data.startswith(_PNG_START) and len(data) > 25 else (8, None)
    if colour_type != _PNG_PALETTE and data.startswith(_PNG_START):
        mask = _decode(data, path, cv2.IMREAD_UNCHANGED)
        if colour_type == _PNG_GREY and bits < 8:
            mask = mask // (255 // (2**bits - 1))  # the decoder stretches ids of 1, 2 and 4 bits to 0..255
        return mask
    # OpenCV would return a palette's colours; Pillow returns the indices.
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "BMP" and image.mode == "1" and data[28:29] == b"\x08":
                # Pillow 13 takes the bytes of a file whose palette is black and white for bits.
                return _decode(data, path, cv2.IMREAD_GRAYSCALE) // 255
            image.load()
            if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
                return np.array(image.convert("RGB"))
            if image.mode == "P":
                return _PalettePixels(np.asarray(image), image.getpalette() or [])
            return np.array(image)
    except _PILLOW_ERRORS as error:
        raise DataError(_unreadable(path, error)) from None


def _upright(image: np.ndarray, data: bytes) -> np.ndarray:
    """Turn an image (h, w) or (h, w, C) as the EXIF orientation in its file says; that of a TIFF has been obeyed."""
    if data.startswith((b"II*\0", b"MM\0*")) or not any(mark in data for mark in _EXIF_MARKS):
        return image
    exif = Image.Exif()
    try:
        with Image.open(io.BytesIO(data)) as file:
            exif.load(file.info.get("exif", b""))
    except Exception:
        return image
    orientation = exif.get(_EXIF_ORIENTATION)
    if orientation in _TURNED_BY_A_QUARTER:
        image = image.swapaxes(0, 1)
    # CIPA DC-008 (Exif 2.32), 4.6.4: the position of the first row and the first column.
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def image_size(path: str | Path, *, upright: bool) -> tuple[int, int, int]:
    """Return size and depth of an image, from its header alone.

    Args:
        path: File.
        upright: Turn the size as the EXIF orientation says.

    Returns:
        (height, width, bytes per channel).

    Raises:
        DataError: The file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            is_deep = image.mode.startswith(("I", "F"))
            # Without EXIF, Pillow would decode a whole PNG in search of it.
            exif = image.getexif() if upright and "exif" in image.info else {}
            if exif.get(_EXIF_ORIENTATION) in _TURNED_BY_A_QUARTER:
                width, height = height, width
        if not is_deep:  # Pillow opens colour PNGs of 16 bits as 8 bits
            with Path(path).open("rb") as file:
                head = file.read(26)
            is_deep = head.startswith(_PNG_START) and head[24:25] == b"\x10"  # bits per channel
    except _PILLOW_ERRORS as error:
        raise DataError(_unreadable(path, error)) from None
    return height, width, 2 if is_deep else 1


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()  # cv2.imread cannot open every path on every system
    except OSError as error:
        raise DataError(_unreadable(path, error)) from None


def _decode(data: bytes, path: str | Path, flags: int) -> np.ndarray:
    """Decode a file with OpenCV, channels BGR, and check that it is whole."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        raise DataError(_unreadable(path, error.err)) from None
    if image is None:
        raise DataError(_unreadable(path, _UNKNOWN_KIND if data else "it is empty"))
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(_unreadable(path, f"its values are {image.dtype}; they must be unsigned, of 8 or 16 bits"))
    is_whole = True  # kinds without an end mark count as whole
    if data.startswith(_JPEG_START):
        start = 2
        # The headers come before the scan (0xDA): they may hold a whole thumbnail with an end mark.
        while start + 4 <= len(data) and data[start] == 0xFF and data[start + 1] != 0xDA:
            start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        is_whole = data.find(_JPEG_END, start) >= 0
    elif data.startswith(_PNG_START):
        is_whole = b"IEND" in data[-4096:]
    if not is_whole:
        _decode_with_pillow(data, path)  # OpenCV fills the missing pixels with grey; Pillow raises an error
    return np.asarray(image)


def _decode_with_pillow(data: bytes, path: str | Path) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return np.asarray(image)
    except _PILLOW_ERRORS as error:
        raise DataError(_unreadable(path, error)) from None


def _unreadable(path: str | Path, reason: Exception | str) -> str:
    if isinstance(reason, FileNotFoundError):
        return f"{path} does not exist. Correct the path or the list that names it."
    if isinstance(reason, UnidentifiedImageError):
        reason = _UNKNOWN_KIND
    elif isinstance(reason, OSError) and reason.strerror:
        reason = reason.strerror
    text = str(reason).strip()
    return f"{path} cannot be read as an image: {text}. Replace the file or take it from the list."


def read_entries(path: Path, noun: str, argument: str, entry: str) -> list[tuple[int, str]]:
    """Return number and text of the lines of a list, without blank lines and comments, which begin with `#`.

    Args:
        path: The list.
        noun: Its name in messages.
        argument: The argument of the loader that names it.
        entry: Form of a line, for messages.

    Raises:
        DataError: The list is missing, unreadable or empty.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"The {noun} {path} does not exist. Correct {argument}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The {noun} {path} cannot be read: {error}. It must be a text file (UTF-8).") from None
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    entries = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    if not entries:
        raise DataError(f"The {noun} {path} is empty. It must hold one `{entry}` per line.")
    return entries


def require_files(paths: Iterable[Path], source: str, root: Path | None = None) -> None:
    """Raise an error if files are missing.

    Args:
        paths: The files.
        source: List or folder that names them, for the message.
        root: Folder that the names are relative to.

    Raises:
        DataError: Some do not exist; names the first few and counts all.
    """
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        rule = "" if root is None else f" Paths are relative to {root.resolve()}; set data_root if that is wrong."
        raise DataError(f"{source} names {len(missing)} files that do not exist: {first_paths(missing)}.{rule}")


def first_paths(paths: Sequence[Path]) -> str:
    """Return the first five paths as text."""
    return ", ".join(map(str, paths[:_PATHS_SHOWN])) + (", ..." if len(paths) > _PATHS_SHOWN else "")
