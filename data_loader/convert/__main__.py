"""Convert annotations of a labelling tool: `python -m data_loader.convert coco.json --output masks`.

Writes a mask of class ids for each image, lists of pairs, and the names of the classes; prints the loaders of a config.
"""

import argparse
import sys
from pathlib import Path

from config import cli
from data_loader.convert.annotations import BACKGROUND, Annotations, broken_names, class_names
from data_loader.convert.coco import read_coco
from data_loader.convert.cvat import read_cvat
from data_loader.convert.labelme import read_labelme
from data_loader.convert.texts import read_json
from data_loader.convert.write import raise_faults, summary, write_masks
from data_loader.convert.yolo import NAMES_FILE, names_classes, read_yolo
from utils.errors import ConfigError, DataError
from utils.files import files_below
from utils.writing.text import is_one_line, visible, write_out


def read_annotations(source: Path, images: Path | None = None, *, is_crowd_ignored: bool = True) -> Annotations:
    """Read annotations of any of the known formats, which the content tells.

    Args:
        source: A JSON of COCO or labelme, an XML of CVAT, or a folder of labelme or YOLO.
        images: Folder of the images, if they are not next to the annotations.
        is_crowd_ignored: See `read_coco`.

    Raises:
        DataError: It does not exist, or is none of these.
    """
    if images is not None and not images.is_dir():
        raise DataError(f"--images {images} is no folder. Name the folder of the images.")
    if source.is_dir():
        found = _read_folder(source, images)
    else:
        found = _read_file(source, images, is_crowd_ignored=is_crowd_ignored)
    found.faults += broken_names(found)
    return found


def _read_folder(source: Path, images: Path | None) -> Annotations:
    jsons = [path for path in files_below(source) if path.suffix.lower() == ".json"]
    unread: list[DataError] = []
    for path in jsons:
        try:
            if "shapes" in read_json(path):
                return read_labelme(jsons, images)
        except DataError as error:
            unread.append(error)
    if names_classes(source) or not jsons:  # tools write other files next to those of YOLO, as notes.json
        return read_yolo(source, images)
    raise_faults(unread)
    raise DataError(
        f"{source} is neither of labelme (no .json in it has `shapes`) nor of YOLO (it has no {NAMES_FILE} or "
        "data.yaml). Export it as one of these, or name the .json of COCO itself.",
        place=str(source),
    )


def _read_file(source: Path, images: Path | None, *, is_crowd_ignored: bool) -> Annotations:
    if source.suffix.lower() == ".xml" and source.is_file():
        return read_cvat(source, images)
    if source.suffix.lower() == ".json" and source.is_file():
        content = read_json(source)
        if "shapes" in content:
            return read_labelme([source], images)
        if {"images", "annotations", "categories"} <= content.keys():
            return read_coco(content, source, images, is_crowd_ignored=is_crowd_ignored)
        raise DataError(
            f"{source} is neither of COCO (images, annotations, categories) nor of labelme (shapes): it holds "
            f"{', '.join(list(content)[:5]) or 'nothing'}. Export it as one of these.",
            place=str(source),
        )
    rule = "is no file of annotations" if source.exists() else "does not exist"
    raise DataError(
        f"{source} {rule}. Name a .json of COCO or labelme, a .xml of CVAT, or a folder of labelme or YOLO."
    )


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = argparse.ArgumentParser(
        prog="python -m data_loader.convert",
        description="Write masks of class ids, lists of pairs and class names from annotations.",
    )
    options.add_argument(
        "source", type=Path, help="a .json of COCO or labelme, a .xml of CVAT, a folder of labelme or YOLO"
    )
    options.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="a new folder for the results")
    options.add_argument(
        "--images", type=Path, metavar="FOLDER", help="of the images; default: next to the annotations"
    )
    options.add_argument(
        "--classes", type=Path, metavar="FILE", help="names of the classes, one a line, in the order of their ids"
    )
    options.add_argument(
        "--unlabelled",
        choices=[BACKGROUND, "ignore"],
        default=BACKGROUND,
        help="pixels without an object: class 0 (default), or ignored, without a class background",
    )
    options.add_argument(
        "--crowd",
        choices=["ignore", "class"],
        default="ignore",
        help="groups of COCO (iscrowd): ignored (default), or class",
    )
    options.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return options


def read_names(path: Path | None) -> list[str] | None:
    """Return the names in a file, one a line; None without a file.

    Raises:
        ConfigError: It cannot be read, is empty, or a name holds a control character.
    """
    if path is None:
        return None
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--classes {path} cannot be read ({error}). Name a text file with one class a line."
        ) from None
    if not names:
        raise ConfigError(f"--classes {path} is empty. Write one class a line.")
    for name in names:
        if not is_one_line(name):
            raise ConfigError(f"--classes {path}: the name {name!a} holds a control character. Remove it.")
    return names


def main(arguments: argparse.Namespace) -> None:
    """Run the command line."""
    found = read_annotations(arguments.source, arguments.images, is_crowd_ignored=arguments.crowd == "ignore")
    raise_faults(found.faults)
    is_background_ignored = arguments.unlabelled == "ignore"
    classes = class_names(found, read_names(arguments.classes), is_background_ignored=is_background_ignored)
    result = write_masks(found, classes, arguments.output)
    left_out = ", ".join(f"{count} {kind}" for kind, count in sorted(found.left_out.items()))
    if left_out:
        sys.stderr.write(visible(f"Left out, since they have no area: {left_out}.\n"))
    write_out(f"{len(result.sizes)} masks in {arguments.output}\n{summary(result)}\n")


if __name__ == "__main__":
    sys.exit(cli.run_command(main, parser()))
