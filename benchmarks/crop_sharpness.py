"""Sharpness of the crops that a training sees, and samples per second of its loader.

    python benchmarks/crop_sharpness.py -c config/camvid/unet.json --files 60 --rounds 7 [path=value ...]

Three ways: images kept at the size of the network's input, at the size that the largest zoom of `crop_range` needs
(as the loader does), and crops of the file, of which each pixel is the average of the area that it covers. Sharpness is
the mean absolute Laplacian of the grey image, relative to that of the file's crops; the difference is the mean absolute
one from them, in levels of 0 to 255. The loader has no workers and all images in memory. The two ways take turns, on
one thread, and a second is one of the processor, which holds on a machine that others use, too.
"""

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
import torch

import build
from config import load_config
from data_loader.images.augmentation import Augmentation, RandomValues
from data_loader.images.preprocessing import NO_ENLARGEMENT
from data_loader.images.warp import Move, move_both
from data_loader.segmentation.loader import SegmentationDataset

SUPERSAMPLING = 24  # points per pixel of an ideal crop, along a side


def ideal(image: np.ndarray, move: Move, kept: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Return the crop of a file's image (h, w, C) as area averages, (H, W, C); bilinear if it is magnified.

    The window is the one that the loader cuts out of an image that is kept at size `kept`.
    """
    magnifies = move.crop**2 * image.shape[0] * image.shape[1] < size[0] * size[1]
    each = 1 if magnifies else SUPERSAMPLING
    points = (size[0] * each, size[1] * each)
    # From the pixels of the file to those of the kept image, then to the window, then to the points.
    scale_y, scale_x = kept[0] / image.shape[0], kept[1] / image.shape[1]
    to_kept = np.array(((scale_x, 0, scale_x / 2 - 0.5), (0, scale_y, scale_y / 2 - 0.5), (0, 0, 1)))
    window = move.window(kept, size)
    if window is None:
        matrix = move.matrix(kept, points) @ to_kept
    else:
        rows, columns = window
        to_window = np.array(((1, 0, -columns.start), (0, 1, -rows.start), (0, 0, 1)))
        sides = (rows.stop - rows.start, columns.stop - columns.start)
        matrix = move._replace(crop=1.0).matrix(sides, points) @ to_window @ to_kept
    how = cv2.INTER_LINEAR if magnifies else cv2.INTER_NEAREST
    fine = cv2.warpAffine(image, matrix, points[::-1], flags=how)
    return np.asarray(cv2.resize(fine, size[::-1], interpolation=cv2.INTER_AREA))


def sharpness(image: np.ndarray) -> float:
    """Return the mean absolute Laplacian of an image (H, W, C), without the edge."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    return float(np.abs(cv2.Laplacian(grey, cv2.CV_64F))[2:-2, 2:-2].mean())


def compare(dataset: SegmentationDataset, count: int, crop: float) -> np.ndarray:
    """Return sharpness and difference of crops, (2, 2): kept at the input's size, kept for the crop."""
    decoder, augmentation = dataset.decoder, dataset.augmentation
    assert isinstance(augmentation, Augmentation)
    preprocessing, generator = decoder.preprocessing, np.random.default_rng(0)
    totals = np.zeros((2, 3))  # sharpness of crop and ideal, and difference
    number = min(count, len(dataset))
    for index in range(number):
        values = RandomValues(*generator.random(len(RandomValues._fields)).tolist())
        move = augmentation.move(values)._replace(crop=crop)
        file = preprocessing.channels(decoder.source.image(index))
        size = preprocessing.geometry(file.shape[1::-1] if move.quarters else file.shape[:2]).resized
        for way, enlargement in enumerate((NO_ENLARGEMENT, augmentation.enlargement)):
            image = preprocessing.shrink(file, enlargement)
            kept, is_file = (image.shape[0], image.shape[1]), image.shape == file.shape
            mask = np.zeros(kept, np.uint8)
            moved, _ = move_both(image, mask, move, size, preprocessing, ignored=0, is_file=is_file)
            best = ideal(file, move, kept, size)
            totals[way] += sharpness(moved), sharpness(best), cv2.absdiff(moved, best).mean()
    return np.column_stack((totals[:, 0] / totals[:, 1], totals[:, 2] / number))


def samples_per_second(loader: Any) -> float:
    """Return the speed of an epoch, per second of the processor."""
    started = process_time()
    count = sum(len(batch[0]) for batch in loader)
    return count / (process_time() - started)


def main() -> None:
    """Measure one config."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("-c", "--config", required=True)
    parser.add_argument("--files", type=int, default=60, help="Images of which crops are compared.")
    parser.add_argument("--rounds", type=int, default=7, help="Epochs of each way whose speed is measured.")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    config = load_config(arguments.config, [*arguments.overrides, "train_loader.args.n_workers=0"])
    loaders = []
    for _ in range(2):
        loader, _ = build.build_loaders(config)
        loaders.append(loader)
    datasets: list[SegmentationDataset] = [loader.dataset.dataset for loader in loaders]
    augmentation = datasets[1].augmentation
    window = None if augmentation is None else augmentation.warp.crop_range
    if window is None:
        raise SystemExit(f"{arguments.config} crops nothing: it has no crop_range. Take another config.")
    smallest, largest = window
    print("crop  sharpness kept at the input's size, kept for the crop  difference from the file's crops, of both")
    for crop in (smallest, (smallest + min(largest, 1.0)) / 2, min(largest, 1.0)):
        before, after = compare(datasets[1], arguments.files, crop)
        print(f"{crop:.2f}  {before[0]:.2f}, {after[0]:.2f}  {before[1]:.2f}, {after[1]:.2f}")
    # The first of the loaders keeps its images at the size of the input.
    datasets[0].decoder = datasets[0].cache.decoder = replace(datasets[0].decoder, enlargement=NO_ENLARGEMENT)
    datasets[0].cache.samples.clear()
    for dataset in datasets:
        dataset.prepare()
    speeds: list[list[float]] = [[], []]
    for _ in range(arguments.rounds):
        for way, loader in enumerate(loaders):
            speeds[way].append(samples_per_second(loader))
    for dataset, speed, name in zip(datasets, speeds, ("the input's size", "the crop's size"), strict=True):
        megabytes = sum(each.image.nbytes + each.mask.nbytes for each in dataset.cache.samples.values()) / 2**20
        print(f"kept at {name}: {megabytes:.0f} MB, {statistics.median(speed):.0f} samples/s (median)")
    print(f"median of the ratios {statistics.median(b / a for a, b in zip(*speeds, strict=True)):.3f}")


if __name__ == "__main__":
    main()
