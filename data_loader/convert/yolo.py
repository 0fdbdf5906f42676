"""YOLO's text files of polygons, one for each image, as Ultralytics reads them."""

from functools import partial
from pathlib import Path
from typing import Any

import yaml

from data_loader.convert.annotations import Annotated, Annotations, Shape
from data_loader.convert.regions import Region, Ring, fill, ring_of
from utils.errors import DataError
from utils.files import IMAGE_SUFFIXES, files_below, read_regular_text
from utils.geometry import Size

NAMES_FILE = "classes.txt"
SPLITS = ("train", "val", "valid", "validation", "test")
_SLACK = 0.01  # how far a coordinate may lie outside the image, as a fraction of its side


def read_yolo(folder: Path, images: Path | None = None) -> Annotations:
    """Read a folder with `images` and `labels`, or with text files next to the images.

    Smaller objects lie on top of larger ones, as Ultralytics draws them. An outline that runs along a line and back
    encloses nothing there, which is how holes are written.

    Args:
        folder: Of the annotations.
        images: Folder of the images, if they lie elsewhere: it takes the place of the folder `images`.

    Raises:
        DataError: There are no names of classes, or no images.
    """
    names, source = _names(folder)
    found = Annotations(names=names, place=str(source))
    files = files_below(folder)
    known = set(files)
    labels = {file for file in files if file.suffix.lower() == ".txt" and "labels" in file.relative_to(folder).parts}
    root = folder if images is None else images
    for image in (file for file in files_below(root) if file.suffix.lower() in IMAGE_SUFFIXES):
        parts = list(image.relative_to(root).parts)
        split, own = "", folder.joinpath(*parts).with_suffix(".txt")
        if images is not None and "images" not in parts:
            parts = ["images", *parts]
        if "images" in parts:
            at = len(parts) - 1 - parts[::-1].index("images")
            named = parts[at + 1] if at + 2 < len(parts) else parts[at - 1] if at else ""
            split = named.lower() if named.lower() in SPLITS else ""  # other folders only group images
            other = folder.joinpath(*parts[:at], "labels", *parts[at + 1 :]).with_suffix(".txt")
            own = other if other in known or own not in known else own
        labels.discard(own)
        layers = _read_labels(own, names, found, source) if own in known else []
        found.images.append(Annotated(image, layers, str(own), None, split, smaller_on_top=True))
    found.faults += [
        DataError(f"{label} has no image. Add the image to the folder images, or remove the file.", place=str(label))
        for label in sorted(labels)
        if label.name != NAMES_FILE
    ]
    if not found.images:
        repair = f"Put the images into {folder / 'images'}, or name their folder with --images"
        raise DataError(f"{root} holds no image. {repair}.", place=str(root))
    return found


def names_classes(folder: Path) -> bool:
    """Return whether a folder has a file that names the classes, as one of YOLO has."""
    return (folder / NAMES_FILE).is_file() or bool(_yaml_files(folder))


def _yaml_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])


def _names(folder: Path) -> tuple[list[str], Path]:
    """Return the names of the classes in the order of their numbers, and their file."""
    path = folder / NAMES_FILE
    if path.is_file():
        lines = (line.strip() for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines())
        return [line for line in lines if line], path
    for path in _yaml_files(folder):
        try:
            content = yaml.safe_load(read_regular_text(path, "utf-8"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise DataError(f"{path} cannot be read: {first}. Correct it.", place=str(path)) from None
        names: Any = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
            names = [names[number] for number in range(len(names))]
        if isinstance(names, list) and names and all(isinstance(name, str | int | float) for name in names):
            return [str(name) for name in names], path
    raise DataError(
        f"{folder} does not name its classes. Add data.yaml with `names: [first, second]`, or {NAMES_FILE} with one "
        "name a line.",
        place=str(folder),
    )


def _read_labels(path: Path, names: list[str], found: Annotations, source: Path) -> list[Shape]:
    """Return the objects of a file; lines that cannot be read become faults."""
    layers = []
    try:
        lines = read_regular_text(path).splitlines()
    except (OSError, ValueError) as error:
        found.faults.append(DataError(f"{path} cannot be read: {error}. Export it again.", place=str(path)))
        return []
    for number, line in enumerate(lines, start=1):
        if not (fields := line.split()):
            continue
        place = f"{path}, line {number}"
        try:
            if not fields[0].isdecimal() or int(fields[0]) >= len(names):
                raise ValueError(f"the class {fields[0]!r} is not one of 0 to {len(names) - 1}, which {source} names")
            if len(fields) == 5:
                raise ValueError("four numbers are a box, which has no outline; export polygons (segmentation)")
            ring = ring_of(fields[1:])
            if ring.min() < -_SLACK or ring.max() > 1 + _SLACK:
                raise ValueError("its coordinates must be fractions of the image's sides, 0 to 1")
        except ValueError as error:
            found.faults.append(DataError(f"{place}: {error}. Correct or remove the line.", place=place))
        else:
            layers.append(Shape(names[int(fields[0])], partial(_of_fractions, ring), place))
    return layers


def _of_fractions(ring: Ring, size: Size) -> Region:
    return fill(ring * (size[1], size[0]), size)
