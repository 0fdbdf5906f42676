"""labelme's JSON, one file for each image."""

import base64
import binascii
import math
from collections.abc import Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_loader.convert.annotations import Annotated, Annotations, Shape
from data_loader.convert.regions import Region, ellipse, fill, rectangle, ring_of
from data_loader.convert.texts import find_image, object_of, objects_of, read_json, text_of
from utils.errors import DataError

_LINES = frozenset({"line", "linestrip", "point", "points"})


def read_labelme(files: list[Path], images: Path | None) -> Annotations:
    """Read the files of labelme. A later shape lies on top of an earlier one; `_background_` cuts holes.

    Args:
        files: One for each image.
        images: Folder of the images; None: they are looked for next to the files.
    """
    found = Annotations()
    for path in files:
        try:
            found.images.append(_read_file(path, images, found))
        except DataError as error:
            found.faults.append(error)
        except (ValueError, OverflowError) as error:
            text = f"{path}: {error}. Save it again in labelme, or remove it."
            found.faults.append(DataError(text, place=str(path)))
    return found


def _read_file(path: Path, images: Path | None, found: Annotations) -> Annotated:
    content = read_json(path)
    layers = []
    for number, shape in enumerate(objects_of(content, "shapes", path)):
        kind = shape.get("shape_type") or "polygon"
        if kind in _LINES:
            found.left_out[kind] += 1
            continue
        try:
            layers.append(Shape(text_of(shape, "label"), _region(kind, shape), f"{path}, shapes[{number}]"))
        except (ValueError, OverflowError) as error:
            raise ValueError(f"shapes[{number}]: {error}") from None
    size = None
    if content.get("imageHeight") is not None and content.get("imageWidth") is not None:
        size = object_of(content, "imageHeight", int), object_of(content, "imageWidth", int)
    return Annotated(find_image(text_of(content, "imagePath"), path.parent, images), layers, str(path), size)


def _region(kind: str, shape: Mapping[str, Any]) -> Any:
    """Return the function from a size to the pixels of a shape."""
    points = object_of(shape, "points", list)
    if not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise ValueError("its points must be pairs [x, y]")
    if kind == "polygon":
        return partial(fill, ring_of([value for point in points for value in point]))
    if kind not in ("rectangle", "circle", "mask"):
        raise ValueError(f"the kind of shape {kind!r} has no rule here; use polygon, rectangle, circle or mask")
    if len(points) != 2 or not all(
        isinstance(value, int | float) and math.isfinite(value) for point in points for value in point
    ):
        raise ValueError(f"a {kind} takes two points of finite numbers")
    (x0, y0), (x1, y1) = points
    if kind == "rectangle":
        return partial(fill, rectangle(x0, y0, x1, y1))
    if kind == "circle":
        radius = math.dist((x0, y0), (x1, y1))
        return partial(fill, ellipse(x0, y0, radius, radius))
    box = (round(y0), round(x0), round(y1) - round(y0) + 1, round(x1) - round(x0) + 1)
    return partial(_of_picture, text_of(shape, "mask"), box)


def _of_picture(text: str, box: tuple[int, int, int, int], size: tuple[int, int]) -> Region:
    """Return the pixels of a mask that is stored as a PNG in base64; its last row and column belong to it."""
    top, left, height, width = box
    if top < 0 or left < 0 or top + height > size[0] or left + width > size[1]:
        raise ValueError("its mask lies outside the image")
    try:
        picture = Image.open(BytesIO(base64.b64decode(text, validate=True)))
        if picture.size == (width, height):  # known before it is decoded
            return Region(top, left, np.asarray(picture.convert("L")) > 0)
    except (OSError, SyntaxError, ValueError, binascii.Error, Image.DecompressionBombError):
        raise ValueError("its mask cannot be decoded") from None
    raise ValueError(f"its mask has {picture.size[0]}x{picture.size[1]} pixels, its points say {width}x{height}")
