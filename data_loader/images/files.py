"""Files of images and masks, decoded and checked, and lists of such files; every error names the file."""

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_GREY, _PNG_PALETTE = 0, 3  # colour types of the PNG specification, 11.2.2
_EXIF_ORIENTATION = 0x0112
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
        if image.ndim != 3 or image.shape[2] != 4:
            raise DataError(f"{path} has no fourth channel, but in_channels is 4. Set in_channels to 3 or 1.")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA))
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def read_mask(path: str | Path, *, is_binary: bool = False) -> np.ndarray:
    """Read a mask of class ids; a palette's indices are the ids.

    Args:
        path: File.
        is_binary: Black and white: the file may be a JPEG, divided at half the range into 0 and 255.

    Returns:
        (h, w) uint8 or uint16.

    Raises:
        DataError: The file is missing, no image, cut off, has colours or fractions instead of ids, or is a JPEG.
    """
    data = _read_bytes(path)
    if data.startswith(_JPEG_START):
        grey = _decode(data, path, cv2.IMREAD_GRAYSCALE)
        # JPEG changes values at edges: other ids than black and white cannot be restored.
        if not is_binary:
            raise DataError(
                f"The mask {path} is a JPEG. JPEG changes labels: save masks as PNG. Only masks of 0 and 255 may be "
                "JPEG, with binary_masks true and no ignore_index."
            )
        brightest = int(grey.max(initial=0))
        if 0 < brightest < 128:
            raise DataError(
                f"The mask {path} is a JPEG whose largest value is {brightest}. A JPEG is divided at 128, and nothing "
                "here is above it. JPEG changes labels: save masks as PNG."
            )
        return np.where(grey >= 128, np.uint8(255), np.uint8(0))
    # Bits per channel and colour type of a PNG are in its header chunk.
    bits, colour_type = (data[24], data[25]) if data.startswith(_PNG_START) and len(data) > 25 else (8, None)
    if colour_type == _PNG_PALETTE or not data.startswith(_PNG_START):
        mask = _decode_with_pillow(data, path)  # OpenCV would return a palette's colours; Pillow returns the indices
    else:
        mask = _decode(data, path, cv2.IMREAD_UNCHANGED)
        if colour_type == _PNG_GREY and bits < 8:
            mask = mask // (255 // (2**bits - 1))  # the decoder stretches ids of 1, 2 and 4 bits to 0..255
    return mask_labels(mask, path)


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


def mask_labels(mask: np.ndarray, path: str | Path) -> np.ndarray:
    """Return a mask (h, w) or (h, w, C) of any kind of number as (h, w) uint8 or uint16.

    Raises:
        DataError: Its channels differ, or it holds fractions, or values that are no label.
    """
    if mask.ndim == 3:
        # Alpha may differ: an editor may have saved grey ids as RGBA.
        colours = mask[..., : 3 if mask.shape[2] >= 3 else 1]
        if not (colours == mask[..., :1]).all():
            raise DataError(
                f"The mask {path} has colours; a mask must hold one class id per pixel. Convert it to grey ids."
            )
        mask = np.ascontiguousarray(mask[..., 0])
    if mask.dtype in (np.uint8, np.uint16):
        return mask
    if mask.dtype == bool:
        return mask.astype(np.uint8)
    if mask.dtype.kind not in "iu":
        raise DataError(
            f"The mask {path} holds {mask.dtype} values; a mask must hold one class id per pixel, a whole number. Save "
            "it with 8 or 16 bits."
        )
    least, largest = (int(mask.min()), int(mask.max())) if mask.size else (0, 0)
    if least < 0 or largest > 65535:
        raise DataError(
            f"The mask {path} holds the value {least if least < 0 else largest}; class ids are 0 to 65535. Correct the "
            "mask."
        )
    return mask.astype(np.uint16)


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
