"""Scores and milliseconds of the people model, next to a public selfie model in the same run.

    pip install ai-edge-litert onnxruntime && npm pack @mediapipe/selfie_segmentation && tar xzf mediapipe-*.tgz
    python benchmarks/people_zoo.py --selfie package/selfie_segmentation.tflite --elsewhere FOLDER

Data: human_ccp (test photos whole, and head and shoulders by its heads.csv), 100 windows without people that are listed
in people_zoo_empty.csv (each was looked at), and photos of other origin, which were never trained on and chose nothing.
mIoU of person and background, one confusion matrix for a set, at the size of the masks.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from data_loader.images.files import read_image, read_mask  # noqa: E402
from inference import load  # noqa: E402

EMPTY = Path(__file__).with_name("people_zoo_empty.csv")
VOID = 255
TILE = 260  # pixels, height of a picture of failures
Segment = Callable[[np.ndarray], np.ndarray]  # (H, W, 3) uint8 RGB -> (H, W) bool


def read_pairs(folder: Path, pairs_file: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, image (H, W, 3) uint8 RGB and mask (H, W) uint8 of a list; its paths begin with the folder's name."""
    for line in (folder / pairs_file).read_text(encoding="utf-8").split("\n"):
        if line.strip():
            image, mask = (folder.joinpath(*Path(part.strip()).parts[1:]) for part in line.split(","))
            yield image.stem, read_image(image), read_mask(mask)


def head_crops(folder: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield head and shoulders of the test photos: a square three heads high, the head in its upper part."""
    with (folder / "heads.csv").open(encoding="utf-8", newline="") as file:
        heads = {row["photo"]: row for row in csv.DictReader(file) if row["x0"]}
    for name, image, mask in read_pairs(folder, "test_pairs.txt"):
        if name in heads:
            height, width = mask.shape
            left, top, right, bottom = (float(heads[name][side]) for side in ("x0", "y0", "x1", "y1"))
            head = (bottom - top) * height
            y, x = max(0, top * height - 0.4 * head), (left + right) / 2 * width
            rows = slice(round(y), round(min(height, y + 3 * head)))
            columns = slice(round(max(0, x - 1.5 * head)), round(min(width, x + 1.5 * head)))
            yield name, image[rows, columns].copy(), mask[rows, columns].copy()


def empty_windows(folders: dict[str, Path]) -> Iterator[np.ndarray]:
    """Yield the windows without people, (H, W, 3) uint8 RGB."""
    with EMPTY.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            image = read_image(folders[row["data"]] / row["file"])
            left, top, width, height = (int(row[key]) for key in ("left", "top", "width", "height"))
            yield image[top : top + height, left : left + width].copy()


def miou(samples: Iterator[tuple[str, np.ndarray, np.ndarray]], segment: Segment) -> float:
    """Return the mean IoU of both classes over all pixels of a set."""
    counts = np.zeros((2, 2))
    for _, image, mask in samples:
        known, found = mask != VOID, segment(image)
        counts += np.histogram2d(mask[known] > 0, found[known], bins=2, range=[[0, 1], [0, 1]])[0]
    return float(np.mean([counts[k, k] / (counts[k].sum() + counts[:, k].sum() - counts[k, k]) for k in (0, 1)]))


def wrong_area(images: Iterator[np.ndarray], segment: Segment) -> float:
    """Return the share of the pixels of empty windows that are taken for people; each window counts equally."""
    return float(np.mean([segment(image).mean() for image in images]))


def draw_failures(folder: Path, segment: Segment, file: Path) -> None:
    """Write the test photos and head crops with the lowest IoU of the person: missed parts red, added ones blue."""
    found: list[tuple[float, np.ndarray]] = []
    for samples in (read_pairs(folder, "test_pairs.txt"), head_crops(folder)):
        for _, image, mask in samples:
            truth, person = mask == 1, segment(image)
            shown = image.copy()
            for wrong, colour in ((truth & ~person, (255, 0, 0)), (person & ~truth, (0, 0, 255))):
                shown[wrong] = (0.35 * shown[wrong] + 0.65 * np.array(colour)).astype(np.uint8)
            scale = TILE / shown.shape[0]
            tile = cv2.resize(shown, (round(shown.shape[1] * scale), TILE), interpolation=cv2.INTER_AREA)
            found.append(((truth & person).sum() / max(1, (truth | person).sum()), tile))
    half = len(found) // 2
    rows = [sorted(part, key=lambda each: each[0])[:6] for part in (found[:half], found[half:])]
    strips = [np.hstack([tile for _, tile in row]) for row in rows]
    width = min(strip.shape[1] for strip in strips)
    sheet = np.vstack([strip[:, :width] for strip in strips])
    cv2.imwrite(str(file), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


def selfie_model(file: Path) -> tuple[Segment, Callable[[], Any]]:
    """Return the public model as a function of an image, and a call of it alone; two threads."""
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(str(file), num_threads=2)
    model.allocate_tensors()
    source, result = model.get_input_details()[0]["index"], model.get_output_details()[0]["index"]

    def segment(image: np.ndarray) -> np.ndarray:
        model.set_tensor(source, cv2.resize(image, (256, 256)).astype(np.float32)[None] / 255)
        model.invoke()
        return np.asarray(cv2.resize(model.get_tensor(result)[0, ..., 0], image.shape[1::-1]) > 0.5)

    return segment, model.invoke


def exported(model: str) -> tuple[Callable[[], Any], str]:
    """Return a call of a network alone, exported to onnxruntime, two threads; and the size of its input."""
    import onnxruntime

    from models.zoo.cards import find_network

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.onnx"
        command = [
            sys.executable,
            "export.py",
            "--resume",
            find_network(model),
            "--format",
            "onnx",
            "--output",
            str(file),
        ]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = 2, 1
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 if axis == 0 else 256 for axis, size in enumerate(source.shape)]
    values = {source.name: np.random.default_rng(0).random(shape, dtype=np.float32)}
    return lambda: session.run(None, values), "x".join(map(str, shape))


def milliseconds(calls: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Return the median milliseconds of each call, the calls in turn."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, measured in zip(calls, times, strict=True):
            call()
            start = time.perf_counter()
            for _ in range(10):
                call()
            measured.append((time.perf_counter() - start) * 100)
    return [median(each) for each in times]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="people", help="a network of the zoo, a run or a checkpoint")
    parser.add_argument("--selfie", type=Path, help="selfie_segmentation.tflite")
    parser.add_argument("--human-ccp", type=Path, default=ROOT / "data" / "human_ccp")
    parser.add_argument("--camvid", type=Path, default=ROOT / "data" / "camvid")
    parser.add_argument(
        "--elsewhere", type=Path, help="photos of other origin: everyday_pairs.txt, portraits_pairs.txt"
    )
    parser.add_argument("--failures", type=Path, help="a .jpg of the worst test photos")
    parser.add_argument("--rounds", type=int, default=15, help="of the measurement of time; 0: none")
    arguments = parser.parse_args()
    network = load(arguments.model)
    segments: dict[str, Segment] = {arguments.model: lambda image: network.masks([image])[0] > 0}
    calls: list[Callable[[], Any]] = []
    if arguments.selfie:
        segments["selfie"], call = selfie_model(arguments.selfie)
        calls.append(call)
    ccp = arguments.human_ccp
    sets: dict[str, Callable[[], Iterator[tuple[str, np.ndarray, np.ndarray]]]] = {
        "human_ccp test": lambda: read_pairs(ccp, "test_pairs.txt"),
        "head and shoulders": lambda: head_crops(ccp),
    }
    if arguments.elsewhere:
        for name in ("portraits", "everyday"):
            sets[name] = lambda name=name: read_pairs(arguments.elsewhere, f"{name}_pairs.txt")  # type: ignore[misc]
    print(f"{'mIoU':<20}" + "".join(f"{name[-14:]:>16}" for name in segments))
    for name, samples in sets.items():
        print(
            f"{name:<20}" + "".join(f"{miou(samples(), segment):>16.4f}" for segment in segments.values()), flush=True
        )
    folders = {"human_ccp": ccp, "camvid": arguments.camvid}
    wrong = [wrong_area(empty_windows(folders), segment) for segment in segments.values()]
    print(f"{'empty, wrong area':<20}" + "".join(f"{share:>16.2%}" for share in wrong))
    if arguments.failures:
        draw_failures(ccp, segments[arguments.model], arguments.failures)
    if arguments.rounds:
        call, size = exported(arguments.model)
        times = milliseconds([call, *calls], arguments.rounds)
        print(f"{'ms ' + size:<20}" + "".join(f"{value:>16.2f}" for value in times))


if __name__ == "__main__":
    main()
