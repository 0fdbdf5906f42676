"""CVAT's XML of images ("CVAT for images 1.1")."""

from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from data_loader.convert.annotations import Annotated, Annotations, Shape
from data_loader.convert.regions import Region, ellipse, expand, fill, rectangle, ring_of
from data_loader.convert.texts import find_image
from utils.errors import DataError
from utils.files import open_regular
from utils.geometry import Size

_WITHOUT_AREA = frozenset({"polyline", "points", "skeleton", "cuboid", "tag"})


def read_cvat(path: Path, images: Path | None) -> Annotations:
    """Read a file of CVAT. Shapes of a higher `z_order` lie on top, of equal ones the later.

    Args:
        path: The file.
        images: Folder of the images; None: they are looked for next to the file.

    Raises:
        DataError: The file is no such XML.
    """
    root = _parse(path)
    found = Annotations(names=[name.text or "" for name in root.iterfind("./meta//labels/label/name")], place=str(path))
    if root.find("track") is not None:
        raise DataError(f'{path} holds tracks of a video. Export the task as "CVAT for images 1.1".', place=str(path))
    for number, entry in enumerate(root.iterfind("image")):
        place = f"{path}, image {entry.get('name', f'[{number}]')}"
        layers = []
        try:
            size = int(_number(entry, "height")), int(_number(entry, "width"))
            file = find_image(_text(entry, "name"), path.parent, images)
            for position, shape in enumerate(entry):
                if shape.tag in _WITHOUT_AREA:
                    found.left_out[shape.tag] += 1
                    continue
                where = f"{place}, {shape.tag} {position}"
                order = int(shape.get("z_order") or 0)
                layers.append(Shape(_text(shape, "label"), _region(shape), where, order))
        except (ValueError, OverflowError) as error:
            found.faults.append(DataError(f"{place}: {error}. Correct it in CVAT and export again.", place=place))
        else:
            found.images.append(Annotated(file, layers, place, size, (entry.get("subset") or "").lower()))
    return found


def _parse(path: Path) -> ElementTree.Element:
    try:
        with open_regular(path) as file:
            content = file.read()
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content:  # entities can unpack to any size
            raise ValueError("it declares entities, which no file of CVAT does")
        root = ElementTree.fromstring(content)
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise DataError(f"{path} cannot be read: {error}. Export it again.", place=str(path)) from None
    if root.tag != "annotations":
        raise DataError(f"{path} is no file of CVAT: it begins with <{root.tag}>, not <annotations>.", place=str(path))
    return root


def _text(entry: ElementTree.Element, key: str) -> str:
    text = entry.get(key)
    if not text:
        raise ValueError(f"<{entry.tag}> has no {key}")
    return text


def _number(entry: ElementTree.Element, key: str) -> float:
    text = _text(entry, key)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{key} of <{entry.tag}> is {text!r}, which is no number") from None


def _region(shape: ElementTree.Element) -> Any:
    """Return the function from a size to the pixels of a shape."""
    degrees = float(shape.get("rotation") or 0)
    if shape.tag == "polygon":
        return partial(fill, ring_of(_text(shape, "points").replace(";", ",").split(",")))
    if shape.tag == "box":
        left, top, right, bottom = (_number(shape, key) for key in ("xtl", "ytl", "xbr", "ybr"))
        return partial(fill, ring_of(rectangle(left, top, right, bottom, degrees).ravel().tolist()))
    if shape.tag == "ellipse":
        x, y, across, down = (_number(shape, key) for key in ("cx", "cy", "rx", "ry"))
        return partial(fill, ring_of(ellipse(x, y, across, down, degrees).ravel().tolist()))
    if shape.tag == "mask":
        top, left, height, width = (int(_number(shape, key)) for key in ("top", "left", "height", "width"))
        counts = [int(count) for count in _text(shape, "rle").split(",")]
        return partial(_of_runs, counts, (top, left, height, width))
    raise ValueError(f"<{shape.tag}> has no rule here; use polygons, boxes, ellipses or masks")


def _of_runs(counts: list[int], box: tuple[int, int, int, int], size: Size) -> Region:
    """Return the pixels of run lengths that go along the rows of a box."""
    top, left, height, width = box
    if min(box) < 0 or top + height > size[0] or left + width > size[1]:
        raise ValueError("its mask lies outside the image")
    return Region(top, left, expand(counts, (height, width), by_columns=False))
