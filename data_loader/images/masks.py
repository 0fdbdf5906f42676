"""Masks: the labels that the decoded pixels of a file stand for, and the files that cannot hold labels.

h, w size of a mask.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import COMPRESSION_INFO

from data_loader.images.tiff import TIFF_STARTS
from utils.errors import DataError

_LOSSY_FORMATS = {"JPEG", "MPO", "JPEG2000", "AVIF", "HEIF", "DDS"}  # as Pillow names them
_LOSSY_IN_TIFF = {"jpeg", "tiff_jpeg", "webp"}  # compressions, as Pillow names them
_TIFF_COMPRESSION = 259
_COLOR_TOLERANCE = 64  # levels by which a lossy file makes the channels of grey differ, at most
_LEAST_AREA = 0.01  # of the pixels: the interior of a value that fills areas; soft edges have none
_VALUES_SHOWN = 4


def lossy_kind(data: bytes) -> str | None:
    """Return the name of the format if the content of a file is one that changes values at edges; None otherwise."""
    if data.startswith(b"\xff\xd8"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return None if _is_lossless_webp(data) else "lossy WebP"
    if data.startswith(b"\x89PNG"):
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            if data.startswith(TIFF_STARTS):
                compression = COMPRESSION_INFO.get(image.tag_v2.get(_TIFF_COMPRESSION), "")  # type: ignore[attr-defined]
                return (
                    f"TIFF with {compression.split('_')[-1].upper()} inside" if compression in _LOSSY_IN_TIFF else None
                )
            return image.format if image.format in _LOSSY_FORMATS else None
    except Exception:
        return None


def _is_lossless_webp(data: bytes) -> bool:
    """Return whether a WebP holds no lossy frame: its chunks are a name, a length and a content of even length."""
    start, end = 12, len(data)
    while start + 8 <= end:
        name, length = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], "little")
        if name == b"VP8 ":
            return False
        start += 24 if name == b"ANMF" else 8 + length + length % 2  # a frame of an animation holds chunks again
    return True


def mask_labels(mask: np.ndarray, path: str | Path) -> np.ndarray:
    """Return a mask (h, w) or (h, w, C) of any kind of number as (h, w) uint8 or uint16.

    Raises:
        DataError: Its channels differ, only its alpha channel holds a shape, or it holds fractions, or values that are
            no label.
    """
    if mask.ndim == 3:
        # Alpha may differ: an editor may have saved grey ids as RGBA.
        colors = mask[..., : 3 if mask.shape[2] >= 3 else 1]
        if not (colors == mask[..., :1]).all():
            raise DataError(
                f"The mask {path} has colours; a mask must hold one class id per pixel. Convert it to grey ids."
            )
        if mask.shape[2] in (2, 4) and mask.size and np.ptp(colors) == 0 and np.ptp(mask[..., -1]) != 0:
            raise DataError(
                f"The mask {path} has the one value {colors.flat[0]} everywhere, and a shape in its alpha channel "
                "(transparency), which is not read. Save the shape as grey ids, without an alpha channel."
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


def grey_of_palette(
    indices: np.ndarray, palette: Sequence[int], path: str | Path, ignore_index: int | None
) -> np.ndarray:
    """Return a black and white mask that has a palette as grey values.

    The order of a palette's colours is chosen by the program that writes the file: often white comes first. So the
    colours are read, not the indices. Other colours than greys are the object if index 0 is black, where both agree.

    Args:
        indices: (h, w) uint8, as stored.
        palette: Red, green and blue of each index, one after the other.
        path: The file, for errors.
        ignore_index: A label that counts nowhere; with it, the indices are labels.

    Returns:
        (h, w) uint8: greys as they are, other colours as 255; with `ignore_index` the indices.

    Raises:
        DataError: Colours and indices contradict each other.
    """
    colors = np.zeros((256, 3), np.uint8)
    known = np.asarray(palette[: 3 * 256], np.uint8).reshape(-1, 3)
    colors[: len(known)] = known
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
    is_grey = bool((np.ptp(colors[used], axis=1) == 0).all())
    greys = np.unique(colors[used, 0])
    begins_black = not colors[0].any()
    # Dark greys are ids if 0 is the background; otherwise nothing says which of them is.
    is_divided = len(greys) > 1 and (begins_black or greys[0] == 0 or greys[-1] >= 128)
    shown = _listed([tuple(map(int, color)) for color in colors[used]])
    if ignore_index is not None:
        if begins_black:
            return indices
        rule = "with ignore_index, indices are labels, and 0, the background, must be black"
    elif is_grey and (len(used) < 2 or is_divided):
        return np.asarray(colors[indices, 0])
    elif begins_black and not is_grey:
        return np.where(indices > 0, np.uint8(255), np.uint8(0))
    else:
        rule = "binary_masks reads black and white by their colours, and these are not"
    raise DataError(
        f"The mask {path} has a palette, and the colours (red, green, blue) of its indices {_listed(used)} are "
        f"{shown}: {rule}. Save the mask as grey, 0 and 255."
    )


def _listed(values: Sequence[object] | np.ndarray) -> str:
    return ", ".join(map(str, values[:_VALUES_SHOWN])) + (", ..." if len(values) > _VALUES_SHOWN else "")


def black_and_white(mask: np.ndarray, path: str | Path, *, kind: str | None, ignore_index: int | None) -> np.ndarray:
    """Return background and object of a binary mask.

    A mask that reaches half of its range (255, or 65535 if it holds more) is black and white with soft edges and is
    divided there; in any other one every value above 0 is the object.

    Args:
        mask: (h, w) uint8 or uint16.
        path: The file, for errors.
        kind: Name of a lossy format; None if the values are those that were saved.
        ignore_index: A label that counts nowhere.

    Returns:
        (h, w): 0, the object as 255 (254 if that is ignored), and `ignore_index`; uint8, or uint16 if needed.

    Raises:
        DataError: It cannot be told which of the values are the object.
    """
    top = 256 if mask.dtype == np.uint8 else 65536
    present = cv2.calcHist([mask], [0], None, [top], [0, top]).ravel() > 0  # ten times as fast as bincount
    if ignore_index is not None and ignore_index < top:
        present[ignore_index] = False
    values = np.flatnonzero(present)
    brightest = int(values[-1]) if len(values) else 0
    half = 128 if brightest <= 255 else 32768
    if kind is not None and 0 < brightest < half:
        raise DataError(
            f"The mask {path} is a {kind} whose largest value is {brightest}. A {kind} is divided at {half}, and "
            f"nothing here is above it. {kind} changes labels: save masks as PNG."
        )
    if len(values) > 1 and values[0] >= half:
        areas = _values_of_areas(mask, values)
        if len(areas) > 1 and areas[-1] - areas[0] >= half // 4:  # not the noise of a lossy file
            raise DataError(
                f"The mask {path} has areas of the values {_listed(areas)}: binary_masks divides black and white at "
                f"{half}, and all of them would be the object. Save the mask as 0 and 255."
            )
    elif len(values) > 2 and brightest >= half:
        areas = [value for value in _values_of_areas(mask, values) if kind is None or 16 <= value < 240]
        if len(areas) > (2 if kind is None else 1) or (kind is not None and areas and areas[0] < half):
            raise DataError(
                f"The mask {path} has areas of the values {_listed(areas)}: binary_masks divides black and "
                f"white at {half}, and these are more. Name the value that means unknown as ignore_index, or give each "
                "value its class by label_map instead of binary_masks."
            )
    is_object = mask >= half if brightest >= half else mask > 0
    dtype = np.uint16 if (ignore_index or 0) > 255 else np.uint8
    divided = np.where(is_object, dtype(254 if ignore_index == 255 else 255), dtype(0))
    if ignore_index is not None:
        divided[mask == ignore_index] = ignore_index
    return divided


def _values_of_areas(mask: np.ndarray, values: np.ndarray) -> list[int]:
    """Return those of the values of a mask that fill areas, which those of soft edges do not."""
    square = np.ones((3, 3), np.uint8)
    interior = mask[cv2.erode(mask, square) == cv2.dilate(mask, square)]
    counts = np.bincount(interior, minlength=int(values[-1]) + 1)
    return [int(value) for value in values if counts[value] >= _LEAST_AREA * mask.size]


def require_opaque_object(divided: np.ndarray, alpha: np.ndarray, path: str | Path) -> None:
    """Raise an error if a black and white mask and its alpha channel say different things.

    Args:
        divided: (h, w), above 0 where the object is.
        alpha: (h, w), 0 where the file is transparent.
        path: The file.

    Raises:
        DataError: Parts of the object are transparent, and others are not.
    """
    is_hidden = alpha == 0
    count = int(np.count_nonzero(is_hidden & (divided > 0)))
    if count and not is_hidden.all():
        raise DataError(
            f"The mask {path} is transparent at {count} pixels of the object: colours and alpha channel say different "
            "things. Save the mask as black and white, without an alpha channel."
        )


def is_colored(image: np.ndarray) -> bool:
    """Return whether the colours of an image (h, w, 3 or 4) uint8 differ by more than lossy compression explains."""
    first, second, third = cv2.split(image)[:3]
    pairs = ((first, second), (second, third), (first, third))
    return any(int(cv2.absdiff(one, other).max(initial=0)) > _COLOR_TOLERANCE for one, other in pairs)
