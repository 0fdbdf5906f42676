"""Make the training data of the people model: `python -m data_loader.people_zoo --photos A --splits B --output C`.

The photos and their labels are those of the repository clothing-co-parsing (Apache-2.0), at full size. Nothing is
fetched. Everything follows from the seed: two calls write the same files.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from config import cli
from data_loader.people_zoo import scenes
from data_loader.people_zoo.passers_by import open_model
from data_loader.people_zoo.photos import AnnotatedPhotos, Box, Photo
from data_loader.people_zoo.scenes import Scene
from utils.errors import ConfigError, DataError
from utils.writing.text import write_out

Draw = Callable[[Sequence[Photo], np.random.Generator, Path | None], Scene]
QUALITIES = (45, 96)  # of JPEG


def crop_of(window: Callable[[Photo, np.random.Generator], Box]) -> Draw:
    """Return a function that draws a crop: the window of any photo."""

    def draw(photos: Sequence[Photo], rng: np.random.Generator, selfie_model: Path | None) -> Scene:
        photo = photos[int(rng.integers(len(photos)))]
        return scenes.crop(photo, window(photo, rng), selfie_model)

    return draw


# Required abilities of the network, and the share of the samples that shows each; sizes are in heads.
KINDS: dict[str, tuple[float, Draw]] = {
    "whole": (0.13, crop_of(lambda photo, _: scenes.whole_window(photo))),
    "portrait": (0.14, crop_of(partial(scenes.head_window, heights=(1.2, 2.8)))),
    "half": (0.1, crop_of(partial(scenes.head_window, heights=(2.8, 6.5)))),
    "part": (0.09, crop_of(scenes.any_window)),
    "composite": (0.25, scenes.draw_composite),
    "close": (0.15, scenes.draw_close),
    "empty": (0.14, scenes.empty),
}


def write_sample(number: int, photos: Sequence[Photo], seed: int, folder: Path, selfie_model: Path | None) -> str:
    """Write image and mask of a sample, and return its line in the list of pairs.

    Raises:
        DataError: A photo cannot be read, or the disk is full.
    """
    rng = np.random.default_rng([seed, number])
    names = list(KINDS)
    kind = names[int(rng.choice(len(names), p=[share for share, _ in KINDS.values()]))]
    sample, quality = KINDS[kind][1](photos, rng, selfie_model), int(rng.integers(*QUALITIES))
    image, mask = (f"{part}/{number:05d}_{kind}.{suffix}" for part, suffix in (("images", "jpg"), ("masks", "png")))
    jpeg = cv2.imencode(".jpg", sample.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    try:
        (folder / image).write_bytes(jpeg.tobytes())
        (folder / mask).write_bytes(cv2.imencode(".png", sample.mask)[1].tobytes())
    except OSError as error:  # a full disk: cv2.imwrite would only return False
        raise DataError(
            f"{folder / image} cannot be written ({error.strerror}). Make room, remove the folder and start again."
        ) from None
    return f"{folder.name}/{image}, {folder.name}/{mask}"


def write_split(task: Callable[[int], str], count: int, folder: Path, processes: int) -> Path:
    """Write the samples of a split below a folder, and return their list of pairs next to it."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    with Pool(processes) as pool:
        lines = list(tqdm(pool.imap(task, range(count), chunksize=16), total=count, desc=folder.name))
    pairs_file = folder.with_name(f"{folder.name}_pairs.txt")
    pairs_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return pairs_file


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = argparse.ArgumentParser(
        prog="python -m data_loader.people_zoo",
        description="Write crops, composites and empty scenes of annotated photos: the people model's training data.",
    )
    options.add_argument(
        "--photos", type=Path, required=True, metavar="FOLDER", help="a copy of the repository clothing-co-parsing"
    )
    options.add_argument(
        "--splits", type=Path, required=True, metavar="FOLDER", help="of train_pairs.txt, valid_pairs.txt, heads.csv"
    )
    options.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="a new folder for the samples")
    options.add_argument(
        "--passers-by",
        type=Path,
        metavar="FILE",
        help="selfie_segmentation.tflite of npm's @mediapipe/selfie_segmentation: people without a label are ignored",
    )
    options.add_argument("--train", type=cli.positive_int, default=36000, metavar="N", help="samples to train on")
    options.add_argument("--valid", type=cli.positive_int, default=600, metavar="N", help="samples to validate on")
    options.add_argument("--processes", type=cli.positive_int, default=2, metavar="N", help="processes that draw")
    options.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    options.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return options


def main(arguments: argparse.Namespace) -> None:
    """Run the command line.

    Raises:
        ConfigError: The output exists.
        DataError: A photo, its annotation or the model is missing or damaged.
    """
    if arguments.passers_by is not None:
        open_model(arguments.passers_by)
    if arguments.output.exists():
        raise ConfigError(f"--output {arguments.output} exists. Name a new folder, or remove that one.")
    splits = {
        name: AnnotatedPhotos(arguments.photos, arguments.splits / f"{name}_pairs.txt") for name in ("train", "valid")
    }
    for offset, (name, photos) in enumerate(splits.items()):
        count, folder, seed = vars(arguments)[name], arguments.output / name, arguments.seed + offset
        task = partial(write_sample, photos=photos, seed=seed, folder=folder, selfie_model=arguments.passers_by)
        file = write_split(task, count, folder, arguments.processes)
        write_out(f"{count} samples of {len(photos)} photos: {file}\n")


if __name__ == "__main__":
    sys.exit(cli.run_command(main, parser()))
