"""Rate at which a check reads samples: photos of 320 px as JPEG, masks as PNG, generated.

`python benchmarks/check_rate.py [--photos 2000]` prints photos per second, and the processor time that one takes.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_loader.checking.compare import compare_splits
from data_loader.checking.examine import examine
from data_loader.common.options import ImageOptions, LabelOptions, MaskLoaderOptions, PairOptions
from data_loader.segmentation.loader import SegmentationDataLoader

SIZE = (240, 320)


def write_photos(folder: Path, count: int) -> Path:
    """Write photos with the detail of real ones (about 25 kB each) and masks of blobs; return the list."""
    generator, lines = np.random.default_rng(0), []
    for number in range(count):
        image = np.zeros((*SIZE, 3), np.float32)
        for cells, strength in ((4, 90), (24, 40), (120, 14)):
            coarse = generator.normal(0, strength, (cells * SIZE[0] // SIZE[1] + 1, cells, 3)).astype(np.float32)
            image += cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        mask = (image[..., 0] > 20).astype(np.uint8) + (image[..., 1] > 60)
        cv2.imwrite(
            str(folder / f"{number}.jpg"), np.clip(image + 128, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90]
        )
        cv2.imwrite(str(folder / f"{number}.png"), mask.astype(np.uint8))
        lines.append(f"{number}.jpg, {number}.png")
    (folder / "pairs.txt").write_text("\n".join(lines))
    return folder / "pairs.txt"


def main() -> None:
    """Print the rate over several passes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--passes", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pairs = write_photos(Path(folder), arguments.photos)
        kilobytes = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1024 / arguments.photos
        loader = SegmentationDataLoader(
            PairOptions(pairs_file=str(pairs)),
            labels=LabelOptions(num_classes=3),
            images=ImageOptions(resize=(192, 256)),
            loading=MaskLoaderOptions(cache_mb=1),
        )
        processors = len(os.sched_getaffinity(0))
        print(
            f"{arguments.photos} photos of {SIZE[0]}x{SIZE[1]}, {kilobytes:.0f} kB each with mask; {processors} cores"
        )
        for _ in range(arguments.passes):
            started, busy = time.perf_counter(), time.process_time()
            facts, findings = examine(loader, "train_loader")
            seconds, busy = time.perf_counter() - started, time.process_time() - busy
            assert facts.num_readable == arguments.photos
            assert not findings
            rate, each = arguments.photos / seconds, 1000 * busy / arguments.photos
            print(f"{rate:7.0f} photos/s, {each:.2f} ms of processor time each")
        started = time.perf_counter()
        compare_splits({"train": facts, "valid": facts})
        print(f"comparison of two splits of {arguments.photos}: {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
