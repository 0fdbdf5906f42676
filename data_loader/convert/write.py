"""The folder that a conversion writes: masks, lists of pairs, names of the classes."""

import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any

import cv2
from tqdm import tqdm

from data_loader.common.lists import split_entry
from data_loader.convert.annotations import IGNORED, Annotated, Annotations, draw_mask, ids_of_labels, unknown_labels
from data_loader.images.files import image_size
from utils.errors import DataError, first_few
from utils.geometry import Size
from utils.writing.text import in_one_line, is_one_line

LONGEST_SIDE = 512  # of the size that is proposed, in pixels
CLASSES_FILE = "classes.txt"
logger = logging.getLogger(__name__)


@dataclass
class Converted:
    """A finished conversion.

    Attributes:
        classes: Names in the order of their ids.
        lists: Lists of pairs by split; of the split "" if there is only one.
        sizes: Of the images.
        pixels: Number of pixels of each id.
        contested: Pixels that two classes claim.
        too_small: Places of the objects that were left out, since they cover the centre of no pixel.
    """

    classes: Sequence[str]
    lists: dict[str, Path] = field(default_factory=dict)
    sizes: list[Size] = field(default_factory=list)
    pixels: Counter[int] = field(default_factory=Counter)
    contested: int = 0
    too_small: list[str] = field(default_factory=list)

    def sections(self) -> dict[str, Any]:
        """Return the loaders of a config that trains on the masks."""
        height, width = (median(side) for side in zip(*self.sizes, strict=True))
        scale = min(1.0, LONGEST_SIDE / max(height, width))
        resize = [max(32, round(side * scale / 32) * 32) for side in (height, width)]
        common: dict[str, Any] = {"classes": list(self.classes), "resize": resize, "batch_size": 8}
        if self.pixels[IGNORED]:
            common["ignore_index"] = IGNORED
        if "train" not in self.lists:
            path = next(iter(self.lists.values()))
            return {"data_loader": _section(path, common | {"validation_split": 0.1})}
        sections: dict[str, Any] = {}
        for name, splits in (("valid_loader", ("val", "valid", "validation")), ("test_loader", ("test",))):
            for split in splits:
                if split in self.lists:
                    sections[name] = _section(self.lists[split], common | {"is_training": False, "shuffle": False})
        path = self.lists["train"]
        if "valid_loader" not in sections:
            return {"data_loader": _section(path, common | {"validation_split": 0.1}), **sections}
        return {"train_loader": _section(path, common), **sections}


def _section(path: Path, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "SegmentationDataLoader", "args": {"pairs_file": path.as_posix(), **arguments}}


def write_masks(found: Annotations, classes: Sequence[str], output: Path) -> Converted:
    """Write a mask for each image, a list of pairs for each split, and the names of the classes.

    Nothing is written if anything is wrong.

    Args:
        found: The annotations.
        classes: Names in the order of their ids.
        output: A folder that does not exist yet, or is empty.

    Raises:
        DataError: An annotation or an image cannot be used, or the folder cannot be written.
    """
    ids = ids_of_labels(classes)
    raise_faults([*found.faults, *unknown_labels(found.images, ids)])
    if not found.images:
        raise DataError("The annotations name no image. Export them again, with the images.")
    if not is_one_line(str(output)):
        raise DataError(f"--output {str(output)!a}: no config can hold this name. Name another folder.")
    output = output if output.name else output.resolve()  # "." has no name
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"--output {output} exists and is not empty. Name a new folder.")
    partial = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        partial.mkdir(parents=True)
        result = _write(found.images, ids, classes, partial, output)
        if output.exists():
            output.rmdir()
        partial.rename(output)
    except OSError as error:
        raise DataError(f"{output} cannot be written ({error.strerror or error}). Name another --output.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def _write(
    images: Sequence[Annotated], ids: Mapping[str, int], classes: Sequence[str], folder: Path, final: Path
) -> Converted:
    """Fill a folder that will be moved to `final`."""
    result = Converted(classes)
    faults: list[DataError] = []
    lines: dict[str, list[str]] = {}
    names = mask_names([each.image for each in images])
    for annotated, name in zip(tqdm(images, unit="image", desc="convert", leave=False), names, strict=True):
        try:
            size = image_size(annotated.image, upright=True)[:2]
        except DataError as error:
            faults.append(error)
            continue
        if annotated.size not in (None, size):
            height, width = annotated.size or size
            faults.append(
                DataError(
                    f"{annotated.place} is made for {width}x{height} pixels, but {annotated.image} has "
                    f"{size[1]}x{size[0]} (turned as its EXIF orientation says). Use the image that was annotated.",
                    place=annotated.place,
                )
            )
            continue
        drawn = draw_mask(annotated, size, ids)
        image = os.path.relpath(annotated.image.resolve(), final.resolve())
        line = f"{_quoted(image)}, {_quoted(name)}"
        faults += drawn.faults
        if not is_one_line(line) or split_entry(line) != [image, name]:
            text = f"{annotated.image}: no list can hold this name and those of its folders. Rename what is unusual."
            faults.append(DataError(text, place=str(annotated.image)))
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", drawn.mask)[1].tobytes())
        result.sizes.append(size)
        result.contested += drawn.contested
        result.too_small += drawn.too_small
        result.pixels.update(dict(enumerate(np_counts(drawn.mask))))
        lines.setdefault(annotated.split, []).append(line)
    raise_faults(faults)
    for split, entries in lines.items():
        name = f"pairs_{split}.txt" if split else "pairs.txt"
        (folder / name).write_text("\n".join(["# image, mask", *entries]) + "\n", encoding="utf-8")
        result.lists[split] = final / name
    (folder / CLASSES_FILE).write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    return result


def np_counts(mask: Any) -> list[int]:
    """Return the number of pixels of each of 256 ids."""
    return [int(count) for count in cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(character in name for character in ', "#') else name


def mask_names(images: Sequence[Path]) -> list[str]:
    """Return the name of the mask of each image, below the folders that all images do not share.

    If two would be the same (`a.jpg` and `a.png`), the suffix stays part of the name.
    """
    resolved = [image.resolve() for image in images]
    common = Path(os.path.commonpath([path.parent for path in resolved]))
    plain = [PurePosixPath(path.relative_to(common).as_posix()) for path in resolved]
    counts = Counter(str(name.with_suffix("")).casefold() for name in plain)
    names = [
        str(name.with_suffix(".png") if counts[str(name.with_suffix("")).casefold()] == 1 else f"{name}.png")
        for name in plain
    ]
    twice = [name for name, count in Counter(map(str.casefold, names)).items() if count > 1]
    if twice:
        raise DataError(f"Two annotations are of the same image, {twice[0]}. Remove one of them.")
    return names


def raise_faults(faults: Sequence[DataError]) -> None:
    """Raise one error for all faults, if there are any.

    Raises:
        DataError: It names the first few and counts the others.
    """
    if len(faults) > 1:
        lines = [f"{len(faults)} annotations cannot be used; nothing was written:", *first_few(list(map(str, faults)))]
        raise DataError("\n".join(lines), faults)
    if faults:
        raise faults[0]


def summary(result: Converted) -> str:
    """Return the pixels of each class and the config lines, as text."""
    total = max(1, result.pixels.total())
    lines = [f"{'id':>5} {'share':>8}  class"]
    named = [*enumerate(result.classes), (IGNORED, "(ignored)")]
    lines += [f"{number:>5} {result.pixels[number] / total:>8.2%}  {name}" for number, name in named]
    if result.contested:
        lines.append(
            f"{result.contested} pixels belong to objects of two classes; docs/convert.md says which one has them."
        )
    if result.too_small:
        lines.append(f"Objects left out, since they cover the centre of no pixel: {len(result.too_small)}")
        lines += first_few(list(map(in_one_line, result.too_small)))
    body = json.dumps(result.sections(), ensure_ascii=False, indent=2)
    return "\n".join([*lines, "", "The loaders of your config:", body])
