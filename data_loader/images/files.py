"""Files of images and masks, decoded and checked; every error names the file."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from data_loader.images.damage import PNG_START, find_damage
from data_loader.images.headers import HEAD_BYTES, QuickHeader, quick_header
from data_loader.images.masks import (
    black_and_white,
    grey_of_palette,
    is_colored,
    lossy_kind,
    mask_labels,
    require_opaque_object,
)
from data_loader.images.tiff import TIFF_STARTS, with_colours_as_stored
from utils.errors import DataError
from utils.files import IMAGE_SUFFIXES, open_regular, require_decoded_size
from utils.geometry import Size

__all__ = ["DAMAGED_FILE_ERRORS", "IMAGE_SUFFIXES", "image_size", "mask_labels", "read_image", "read_mask"]

DAMAGED_FILE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""Errors of Pillow about a damaged file."""

_PNG_GREY, _PNG_PALETTE = 0, 3  # colour types of the PNG specification, 11.2.2
_EXIF_ORIENTATION = 0x0112
_EXIF_MARKS = (b"eXIf", b"EXIF", b"Exif")  # of PNG, WebP and others
_UNKNOWN_KIND = "it is not an image of a known kind"
_DAMAGED = "it is cut off or damaged, or of a kind that is not known"
_TURNED_BY_A_QUARTER = frozenset({5, 6, 7, 8})
_CHANNELS_OF_CONVERSION = 10  # memory of a mask of colours or of a palette while it becomes ids, as measured
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
_BLOCK_BYTES = 1 << 26  # larger images change the order of their channels in blocks, not in a second image


class ScaledImage(NamedTuple):
    """An image that may be smaller than its file.

    Attributes:
        pixels: As of `read_image`, of any size.
        original: Size of the file, turned as its EXIF orientation says.
    """

    pixels: np.ndarray
    original: Size


def photo_of(image: Image.Image, in_channels: int) -> Image.Image:
    """Return a decoded image of Pillow in a mode whose 8-bit channels are grey values or colours: L, RGB or RGBA.

    An image of any other mode (a palette, black and white, CMYK, ...) is converted, except for those of more bits: the
    modes I and F.

    Args:
        image: Of any mode.
        in_channels: With 4, an image that has transparency is converted to RGBA; otherwise that is dropped.

    Raises:
        ValueError: Pillow has no conversion from its mode.
    """
    if image.mode in ("L", "RGB", "RGBA") or image.mode.startswith(("I", "F")):
        return image
    if in_channels == 4 and (image.mode in ("LA", "PA") or "transparency" in image.info):
        return image.convert("RGBA")
    return image.convert("L" if image.mode in ("1", "LA") else "RGB")


def read_image(path: str | Path, *, in_channels: int = 3, max_decoded_mb: int | None = None) -> np.ndarray:
    """Read a photo: 8 or 16 bits, grey or colour, turned as its EXIF orientation says.

    Args:
        path: File.
        in_channels: With 4, an image of four channels is read with all of them; otherwise a fourth (alpha) is dropped.
        max_decoded_mb: Limit on the decoded image; None: `IMAGE_MB`.

    Returns:
        (h, w, 3) uint8 or uint16, RGB; grey images have three equal channels. (h, w, 4) if asked for.

    Raises:
        DataError: The file is missing, no image, damaged, too large, or lacks the fourth channel.
    """
    data, _ = _read_bytes(path, max_decoded_mb, channels=4 if in_channels == 4 else 3)
    return _decoded_image(data, path, in_channels)


def _decoded_image(data: bytes, path: str | Path, in_channels: int) -> np.ndarray:
    """Return the image in the content of a file, see `read_image`."""
    # IMREAD_UNCHANGED alone retains the fourth channel; it does not turn the image by EXIF.
    flags = cv2.IMREAD_UNCHANGED if in_channels == 4 else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    image = _decode(data, path, flags)
    if in_channels == 4:
        image = _upright(image, data)
        if image.ndim != 3 or image.shape[2] != 4:
            raise DataError(f"{path} has no fourth channel, but in_channels is 4. Set in_channels to 3 or 1.")
    code = cv2.COLOR_BGRA2RGBA if in_channels == 4 else cv2.COLOR_BGR2RGB
    if image.nbytes <= _BLOCK_BYTES:
        return np.asarray(cv2.cvtColor(image, code))
    for block in np.array_split(image, -(-image.nbytes // _BLOCK_BYTES)):
        block[...] = cv2.cvtColor(block, code)
    return image


def read_scaled_image(
    path: str | Path, needed: Callable[[Size], Size], *, in_channels: int = 3, max_decoded_mb: int | None = None
) -> ScaledImage:
    """Read a photo as `read_image`, but a JPEG of which less is needed at 1/2, 1/4 or 1/8 of its size.

    The decoder then skips most of its work. Its averages of blocks differ in the last digits from those of an image
    that is decoded at its full size and shrunk. Only a divisor of both sides is taken: the last row or column of any
    other would stand for pixels beyond the image, which then would lie beside its mask.

    Args:
        path: File.
        needed: (height, width) of the file -> those that the image must have at least.
        in_channels: As in `read_image`; with 4 nothing is reduced.
        max_decoded_mb: As in `read_image`.

    Raises:
        DataError: As `read_image`.
    """
    data, header = _read_bytes(path, max_decoded_mb, channels=4 if in_channels == 4 else 3)
    if in_channels == 4 or not header.is_jpeg:
        image = _decoded_image(data, path, in_channels)
        return ScaledImage(image, (image.shape[0], image.shape[1]))
    if header.has_exif:
        header = _header_of_pillow(io.BytesIO(data), path, data, upright=True)
    original = header.height, header.width
    least = needed(original)
    for factor, flags in _REDUCED.items():
        if original[0] % factor or original[1] % factor:
            continue
        reduced = original[0] // factor, original[1] // factor
        if reduced[0] >= least[0] and reduced[1] >= least[1]:
            image = _decode(data, path, flags)
            if image.shape[:2] != reduced:  # Pillow knows orientations, of XMP, that the decoder does not
                break
            return ScaledImage(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), original)
    image = _decoded_image(data, path, in_channels)
    return ScaledImage(image, (image.shape[0], image.shape[1]))


def read_mask(
    path: str | Path,
    *,
    is_binary: bool = False,
    ignore_index: int | None = None,
    max_decoded_mb: int | None = None,
) -> np.ndarray:
    """Read a mask of class ids, turned as its EXIF orientation says; a palette's indices are the ids.

    Args:
        path: File.
        is_binary: Black and white: divided at half the range into 0 and 255, whatever the format; a palette is read by
            its colours, and the file may be lossy, as a JPEG.
        ignore_index: With `is_binary`, a label that counts nowhere; the file must then not be lossy.
        max_decoded_mb: Limit on the decoded mask; None: `IMAGE_MB`.

    Returns:
        (h, w) uint8 or uint16.

    Raises:
        DataError: The file is missing, no image, damaged, too large, has colours or fractions instead of ids, a shape
            in its alpha channel alone, or is lossy.
    """
    data, _ = _read_bytes(path, max_decoded_mb, channels=None)
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
        if kind is not None and pixels.ndim == 3 and pixels.shape[2] >= 3 and not is_colored(pixels):
            pixels = pixels[..., 1::2]  # green, the nearest to the grey of a lossy file, and alpha
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
    bits, colour_type = (data[24], data[25]) if data.startswith(PNG_START) and len(data) > 25 else (8, None)
    if colour_type != _PNG_PALETTE and data.startswith(PNG_START):
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
    except Exception as error:  # damaged bytes can raise any error in Pillow
        raise DataError(_unreadable(path, error)) from None


def _upright(image: np.ndarray, data: bytes) -> np.ndarray:
    """Turn an image (h, w) or (h, w, C) as the EXIF orientation in its file says; that of a TIFF has been obeyed."""
    if data.startswith(TIFF_STARTS) or not any(mark in data for mark in _EXIF_MARKS):
        return image
    exif = Image.Exif()
    try:
        with Image.open(io.BytesIO(data)) as file:
            if "exif" not in file.info:
                file.load()  # a PNG may have it after the pixels
            exif.load(file.info.get("exif", b""))
    except Exception:  # OpenCV ignores EXIF that cannot be read, and so does this
        return image
    orientation = exif.get(_EXIF_ORIENTATION)
    if orientation in _TURNED_BY_A_QUARTER:
        image = image.swapaxes(0, 1)
    # CIPA DC-008 (Exif 2.32), 4.6.4: the position of the first row and the first column.
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def image_size(path: str | Path, *, upright: bool, max_decoded_mb: int | None = None) -> tuple[int, int, int]:
    """Return size and depth of an image, from its header alone.

    Args:
        path: File.
        upright: Turn the size as the EXIF orientation says.
        max_decoded_mb: Limit on the decoded image; None: `IMAGE_MB`.

    Returns:
        (height, width, bytes per channel).

    Raises:
        DataError: The file is missing, no image, or too large.
    """
    try:
        with open_regular(path) as file:
            head = file.read(HEAD_BYTES)
            quick = quick_header(head)
            if quick is None or (upright and quick.has_exif):
                quick = _header_of_pillow(file, path, head, upright=upright)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise DataError(_unreadable(path, error)) from None
    _require_size(quick, path, max_decoded_mb=max_decoded_mb, channels=3)
    return quick.height, quick.width, quick.depth


def _header_of_pillow(file: BinaryIO, path: str | Path, head: bytes, *, upright: bool) -> QuickHeader:
    """Return the header of an image that is open, with the size turned if `upright` says so.

    Raises:
        DataError: It is no image.
    """
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit knows neither our option nor the memory that an image takes
    file.seek(0)
    try:
        with Image.open(file) as image:
            width, height = image.size
            is_deep = image.mode.startswith(("I", "F"))
            is_jpeg = image.format == "JPEG"
            is_plain = (image.mode in ("1", "L", "F") or image.mode.startswith("I")) and not is_jpeg
            # Without EXIF, Pillow would decode a whole PNG in search of it.
            exif = image.getexif() if upright and "exif" in image.info else {}
            is_turned = exif.get(_EXIF_ORIENTATION) in _TURNED_BY_A_QUARTER
    except Exception as error:  # damaged bytes can raise any error in Pillow
        raise DataError(_unreadable(path, error)) from None
    # Pillow opens colour PNGs of 16 bits as 8 bits; their header says the bits per channel.
    is_deep = is_deep or (head.startswith(PNG_START) and head[24:25] == b"\x10")
    if width < 1 or height < 1:
        raise DataError(_unreadable(path, f"its header says {height}x{width} pixels"))
    if is_turned:
        height, width = width, height
    return QuickHeader(height, width, 2 if is_deep else 1, is_jpeg=is_jpeg, is_plain=is_plain, has_exif=bool(exif))


def _require_size(header: QuickHeader, path: str | Path, *, max_decoded_mb: int | None, channels: int | None) -> None:
    """Refuse an image that is too large.

    `channels` is None for a mask, whose conversion takes more memory if its pixels are not plain numbers.

    Raises:
        DataError: It is.
    """
    if channels is None:
        channels = 3 if header.is_plain else _CHANNELS_OF_CONVERSION
    height, width = header.height, header.width
    found = f"{height}x{width} pixels (height x width)"
    require_decoded_size(path, found, height * width * channels * header.depth, max_decoded_mb, of_many=False)


def _read_bytes(path: str | Path, max_decoded_mb: int | None, channels: int | None) -> tuple[bytes, QuickHeader]:
    """Return the content of an image file that is whole, as far as it shows, and not too large, and its header."""
    try:
        with open_regular(path) as file:  # cv2.imread cannot open every path on every system
            size = os.fstat(file.fileno()).st_size
            require_decoded_size(path, "an image", size, max_decoded_mb, of_many=False)
            data = file.read()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise DataError(_unreadable(path, error)) from None
    damage = find_damage(data)
    if damage is not None:
        raise DataError(_unreadable(path, damage))
    header = quick_header(data) or _header_of_pillow(io.BytesIO(data), path, data, upright=False)
    _require_size(header, path, max_decoded_mb=max_decoded_mb, channels=channels)
    return data, header


def _decode(data: bytes, path: str | Path, flags: int) -> np.ndarray:
    """Decode a file with OpenCV, channels BGR; alpha changes no colour."""
    try:
        image = cv2.imdecode(np.frombuffer(with_colours_as_stored(data), np.uint8), flags)
    except cv2.error as error:
        raise DataError(_unreadable(path, error.err)) from None
    except ValueError as error:
        raise DataError(_unreadable(path, error)) from None
    if image is None:
        raise DataError(_unreadable(path, _DAMAGED))
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(_unreadable(path, f"its values are {image.dtype}; they must be unsigned, of 8 or 16 bits"))
    return np.asarray(image)


def _unreadable(path: str | Path, reason: Exception | str) -> str:
    if isinstance(reason, FileNotFoundError):
        return f"{path} does not exist. Correct the path or the list that names it."
    if isinstance(reason, UnidentifiedImageError):
        reason = _UNKNOWN_KIND
    elif isinstance(reason, OSError) and reason.strerror:
        reason = reason.strerror
    text = " ".join(str(reason).split())
    return f"{path} cannot be read as an image: {text}. Replace the file or take it from the list."
