"""COCO's JSON of objects: polygons and run lengths."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from data_loader.convert.annotations import IGNORED_NAME, Annotated, Annotations, Shape
from data_loader.convert.regions import Region, Ring, expand, fill, ring_of, union, unpack_counts
from data_loader.convert.texts import find_image, is_count, object_of, objects_of, text_of
from utils.errors import DataError
from utils.geometry import Size


def read_coco(content: Mapping[str, Any], path: Path, images: Path | None, *, is_crowd_ignored: bool) -> Annotations:
    """Read a file of COCO.

    An annotation is the union of its polygons, or its run lengths. The format knows no order and no holes in polygons.

    Args:
        content: Of the file.
        path: The file.
        images: Folder of the images; None: they are looked for next to the file.
        is_crowd_ignored: Groups (`iscrowd`) are pixels that count nowhere, below all objects, as in COCO's evaluation.

    Raises:
        DataError: The file is no COCO file.
    """
    found = Annotations(place=str(path))
    categories: dict[int, str] = {}
    for number, entry in enumerate(objects_of(content, "categories", path)):
        identity, name = entry.get("id"), entry.get("name")
        if not (isinstance(identity, int) and isinstance(name, str) and name.strip()) or identity in categories:
            raise DataError(
                f"{path}: categories[{number}] must have a name, and an id of its own. Export the file again."
            )
        categories[identity] = name
    found.names = [categories[identity] for identity in sorted(categories)]
    found.faults += [*_repeated_ids(content, "annotations", path), *_repeated_ids(content, "images", path)]
    layers: dict[object, list[Shape]] = {}
    for number, entry in enumerate(objects_of(content, "annotations", path)):
        place = f"{path}, annotation {entry.get('id', f'[{number}]')}"
        try:
            name = categories.get(object_of(entry, "category_id", int), "")
            if not name:
                raise ValueError(f"its category_id {entry['category_id']} is no category")
            is_ignored = bool(entry.get("iscrowd")) and is_crowd_ignored
            image = object_of(entry, "image_id", (int, str))
            layer = Shape(IGNORED_NAME if is_ignored else name, _region(entry), place, -1 if is_ignored else 0)
        except (ValueError, OverflowError) as error:
            found.faults.append(DataError(f"{place}: {error}. Correct or remove it.", place=place))
        else:
            layers.setdefault(image, []).append(layer)
    for number, entry in enumerate(objects_of(content, "images", path)):
        place = f"{path}, images[{number}]"
        try:
            size = object_of(entry, "height", int), object_of(entry, "width", int)
            file = find_image(text_of(entry, "file_name"), path.parent, images)
            identity = object_of(entry, "id", (int, str))
        except (ValueError, OverflowError) as error:
            found.faults.append(DataError(f"{place}: {error}.", place=place))
        else:
            found.images.append(Annotated(file, layers.pop(identity, []), place, size, smaller_on_top=True))
    if layers and not found.faults:
        place = next(iter(layers.values()))[0].place
        text = f"{place} is of image {next(iter(layers))!r}, which `images` does not list. Add the image, or remove it."
        found.faults.append(DataError(text, place=place))
    return found


def _repeated_ids(content: Mapping[str, Any], key: str, path: Path) -> Iterator[DataError]:
    """Yield an error for each entry with the id of an earlier one: it is not known which of them is meant."""
    first: dict[object, int] = {}
    for number, entry in enumerate(objects_of(content, key, path)):
        identity = entry.get("id")
        if not isinstance(identity, int | str):
            continue
        if (earlier := first.setdefault(identity, number)) != number:
            place = f"{path}, {key}[{number}]"
            text = f"{place}: its id {identity!r} is that of {key}[{earlier}]. Give each an id of its own."
            yield DataError(text, place=place)


def _region(entry: Mapping[str, Any]) -> partial[Region]:
    """Return the function from a size to the pixels of an annotation."""
    outline = entry.get("segmentation")
    if isinstance(outline, list) and outline:
        return partial(_of_polygons, [ring_of(part if isinstance(part, list) else [part]) for part in outline])
    if isinstance(outline, dict):
        counts, size = outline.get("counts"), outline.get("size")
        if not (isinstance(size, list) and len(size) == 2 and all(map(is_count, size))):
            raise ValueError("its run lengths lack `size`, [height, width]")
        if isinstance(counts, str):
            counts = unpack_counts(counts)
        if not isinstance(counts, list):
            raise ValueError("its run lengths lack `counts`, a list or a text")
        return partial(_of_runs, counts, (size[0], size[1]))
    raise ValueError("it has no `segmentation`, as files of boxes have none; export polygons or masks")


def _of_polygons(rings: list[Ring], size: Size) -> Region:
    return union([fill(ring, size) for ring in rings], size) if len(rings) > 1 else fill(rings[0], size)


def _of_runs(counts: list[int], of_size: Size, size: Size) -> Region:
    if of_size != size:
        raise ValueError(f"its run lengths are of {of_size[1]}x{of_size[0]} pixels, the image has {size[1]}x{size[0]}")
    return Region(0, 0, expand(counts, size, by_columns=True))
