"""Damaged files of every kind that is read: our errors only, no read over 5 s, none over 1 GB.

    python benchmarks/readers.py --files 10000 --output readers.json

Each file is cut, changed at some bytes, given a wrong header, or another kind's content. A kind has its
own process with a limited address space; one that dies is a fault, and the next file is taken up. With `--output` the
counts are stored after each hundred files, and the same command continues. File N of a kind is the same in each run.
"""

import argparse
import gzip
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from PIL import Image

from benchmarks.result_files import json_values, require_result_file
from data_loader.classification.sources import list_labelled, read_idx
from data_loader.common.array_files import read_array
from data_loader.convert.__main__ import read_annotations
from data_loader.convert.annotations import class_names
from data_loader.convert.write import write_masks
from data_loader.images.arrays import read_channels
from data_loader.images.files import image_size, read_image, read_mask
from data_loader.segmentation.pairs import list_pairs
from data_loader.time_series.files import read_series
from predictor.io.sources import open_source
from search.study.folders import read_study_config
from search.study.journal import read_events
from trainer.checkpoints.resume import asked_config, run_folders
from utils.checkpoint_file import read_checkpoint
from utils.errors import EspalierError

SECONDS, MEGABYTES = 5.0, 1024
ADDRESS_SPACE = 3 * 2**30  # more than a read may take, so that one which takes too much is seen
CHUNK = 100
FAULTS_SHOWN = 10


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        suffix: End, or whole name, of the file.
        make: Returns the content of a whole file, given a folder for temporary files.
        read: Reads a file as the program does.
    """

    suffix: str
    make: Callable[[Path], bytes]
    read: Callable[[Path], Any]


def photo() -> np.ndarray:
    """Return an image (60, 80, 3) of smooth noise."""
    noise = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
    return np.asarray(cv2.resize(noise, (80, 60), interpolation=cv2.INTER_CUBIC))


def encoded(form: str, mode: str = "RGB", **options: Any) -> Callable[[Path], bytes]:
    """Return a maker of an image file."""

    def make(_: Path) -> bytes:
        file = io.BytesIO()
        image = Image.fromarray(photo())
        if form == "WEBP" and options.get("lossless"):
            image = image.convert("L")  # a mask: three equal channels
        image.convert(mode).save(file, form, **options)
        return file.getvalue()

    return make


def saved(name: str, values: Any, *, compressed: bool = False) -> Callable[[Path], bytes]:
    """Return a maker of a file of arrays."""

    def make(folder: Path) -> bytes:
        path = folder / name
        if path.suffix == ".npy":
            np.save(path, values)
        else:
            (np.savez_compressed if compressed else np.savez)(path, **values)
        return path.read_bytes()

    return make


def deep_png(_: Path) -> bytes:
    """Return a PNG of 16 bits."""
    return bytes(cv2.imencode(".png", photo().astype(np.uint16) * 257)[1])


def idx(_: Path) -> bytes:
    """Return an idx file."""
    return b"\0\0\x08\x03" + b"".join(side.to_bytes(4, "big") for side in (5, 9, 7)) + bytes(range(255)) + bytes(60)


def video(folder: Path) -> bytes:
    """Return a film of ten frames."""
    path = folder / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (80, 60))
    for shift in range(10):
        writer.write(np.roll(photo(), shift, 1))
    writer.release()
    return path.read_bytes()


def checkpoint(folder: Path) -> bytes:
    """Return a checkpoint."""
    import torch

    from utils.checkpoint_file import write_checkpoint

    path = folder / "c.pth"
    content = {"format_version": 1, "global_step": 1, "state_dict": {"a": torch.ones(50)}, "config": {"name": "a"}}
    write_checkpoint(content, [path])
    return path.read_bytes()


def foreign_weights(folder: Path) -> bytes:
    """Return the weights of another program, without our check sum."""
    import torch

    torch.save({"state_dict": {"a": torch.ones(50)}}, folder / "w.pth")
    return (folder / "w.pth").read_bytes()


def journal(folder: Path) -> bytes:
    """Return a study's journal."""
    from search.study.journal import Journal, create_journal

    path = folder / "journal.sqlite"
    create_journal(path)
    writer = Journal(path)
    for number in range(20):
        writer.append("search.lost", number, had_begun=True, text="a" * 50)
    writer.close()
    return path.read_bytes()


def text(content: str) -> Callable[[Path], bytes]:
    """Return a maker of a text file."""
    return lambda _: content.encode()


def read_record(path: Path) -> None:
    """Read the record of a run as a resumed training does."""
    run = path.parent
    config = {"name": run.name, "trainer": {"save_dir": str(run.parent)}}
    asked_config(run)
    run_folders(config)


def read_photo(path: Path) -> None:
    """Read an image as a loader does: its header, then its pixels, with three and with four channels."""
    image_size(path, upright=True)
    read_image(path)


def convert(path: Path) -> None:
    """Draw the masks of a file of annotations, whose image `a.png` lies next to it; of `a.txt`, a folder of YOLO."""
    image = path.with_name("a.png")
    if not image.exists():
        image.write_bytes(encoded("PNG")(path.parent))
        path.with_name("classes.txt").write_text("cat\ndog\n")
    with tempfile.TemporaryDirectory() as place:
        if path.suffix == ".txt":
            for name in ("a.png", path.name, "classes.txt"):
                shutil.copy(path.with_name(name), place)
        found = read_annotations(Path(place) if path.suffix == ".txt" else path)
        classes = class_names(found, ["background", "cat", "dog"], is_background_ignored=False)
        write_masks(found, classes, Path(place) / "masks")


RING = [2.5, 3, 40, 3, 40, 50, 2.5, 50]
COCO = {
    "images": [{"id": 7, "file_name": "a.png", "height": 60, "width": 80}],
    "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}],
    "annotations": [
        {"id": 0, "image_id": 7, "category_id": 3, "segmentation": [RING, RING[::-1]]},
        {"id": 1, "image_id": 7, "category_id": 1, "segmentation": {"counts": [100, 200, 4500], "size": [60, 80]}},
        {"id": 2, "image_id": 7, "category_id": 1, "segmentation": {"counts": "T3X6d\\4", "size": [60, 80]}},
    ],
}
LABELME = {
    "imagePath": "a.png",
    "imageHeight": 60,
    "imageWidth": 80,
    "shapes": [
        {"label": "dog", "shape_type": "polygon", "points": [RING[:2], RING[2:4], RING[4:6]]},
        {"label": "cat", "shape_type": "circle", "points": [[30, 30], [40, 30]]},
        {"label": "cat", "shape_type": "rectangle", "points": [[3, 30], [40, 50]]},
    ],
}
CVAT = """<annotations><meta><job><labels><label><name>dog</name></label><label><name>cat</name></label></labels>
</job></meta>
<image id="0" name="a.png" width="80" height="60"><box label="dog" xtl="0" ytl="0" xbr="40" ybr="4" z_order="1"/>
<polygon label="cat" points="0,0;8,0;8,20;0,20" z_order="0"/><ellipse label="dog" cx="20" cy="7" rx="2" ry="5"/>
<mask label="cat" rle="1, 2, 1" left="6" top="6" width="2" height="2" z_order="0"/></image></annotations>"""
YOLO = "0 0.5 0.5 0.75 0.5 0.75 1 0.5 1\n1 0 0 1 0 1 1 0 1\n"
SERIES = {"x": np.random.default_rng(0).normal(size=(6, 2, 30)), "y": np.array([0, 1] * 3)}
TS = "@problemName a\n@dimensions 2\n@equalLength true\n@seriesLength 3\n@classLabel true a b\n@data\n"
PAIRS = "".join(f"images/{number}.jpg, masks/{number}.png\n" for number in range(9))
RECORD = json.dumps(
    {"asked": {"name": "a", "trainer": {"epochs": 3}}, "folder": "20260101_000000", "versions": {"a": 1}}
)
KINDS = {
    "jpeg": Kind(".jpg", encoded("JPEG", quality=90), read_photo),
    "progressive jpeg": Kind(".jpg", encoded("JPEG", progressive=True, optimize=True), read_photo),
    "png": Kind(".png", encoded("PNG"), read_photo),
    "png of 16 bits": Kind(".png", deep_png, read_photo),
    "bmp": Kind(".bmp", encoded("BMP"), read_photo),
    "tiff": Kind(".tif", encoded("TIFF"), read_photo),
    "packed tiff": Kind(".tif", encoded("TIFF", compression="tiff_lzw"), read_photo),
    "webp": Kind(".webp", encoded("WEBP"), read_photo),
    "ppm": Kind(".ppm", encoded("PPM"), read_photo),
    "mask png": Kind(".png", encoded("PNG", "L"), read_mask),
    "mask of a palette": Kind(".png", encoded("PNG", "P"), lambda path: read_mask(path, is_binary=True)),
    "mask gif": Kind(".gif", encoded("GIF", "P"), read_mask),
    "mask tiff": Kind(".tif", encoded("TIFF", "L"), read_mask),
    "mask bmp": Kind(".bmp", encoded("BMP", "P"), read_mask),
    "mask webp": Kind(".webp", encoded("WEBP", "RGB", lossless=True), read_mask),
    "image npy": Kind(".npy", saved("a.npy", photo().astype(np.float32)), read_channels),
    "image npz": Kind(".npz", saved("a.npz", {"a": photo()}, compressed=True), read_channels),
    "mask npy": Kind(".npy", saved("a.npy", photo()[..., 0].astype(np.int64)), read_array),
    "series npz": Kind(".npz", saved("s.npz", SERIES), read_series),
    "packed series npz": Kind(".npz", saved("s.npz", SERIES, compressed=True), read_series),
    "series ts": Kind(".ts", text(TS + "1,2,3:4,5,6:a\n" * 9 + "1,2,?:4,5e9,-6:b\n" * 9), read_series),
    "idx": Kind(".idx", idx, read_idx),
    "packed idx": Kind(".idx.gz", lambda folder: gzip.compress(idx(folder)), read_idx),
    "pairs": Kind(".txt", text(PAIRS), lambda path: list_pairs(path).whole()),
    "classes": Kind(".txt", text(PAIRS.replace("masks/", "class ")), lambda path: list_labelled(path).whole()),
    "coco": Kind("coco.json", text(json.dumps(COCO)), convert),
    "labelme": Kind("labelme.json", text(json.dumps(LABELME)), convert),
    "cvat": Kind("cvat.xml", text(CVAT), convert),
    "yolo": Kind("a.txt", text(YOLO), convert),
    "environment.json": Kind("environment.json", text(RECORD), read_record),
    "study config": Kind("config.json", text(RECORD), lambda path: read_study_config(path.parent)),
    "journal": Kind("journal.sqlite", journal, lambda path: list(read_events(path))),
    "checkpoint": Kind(".pth", checkpoint, read_checkpoint),
    "foreign weights": Kind(".pth", foreign_weights, read_checkpoint),
    "video": Kind(".avi", video, lambda path: sum(1 for _ in open_source(str(path), read_image))),
}


HUGE = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0", b"\0\0\0\0", b"\0\0\xff\xff")
TEXTS = (b"-1", b"9" * 12, b"9" * 5000, b"1e999", b"nan", b"\0", b"", b'"', b"[" * 3000, b"\xff", b"\t", b",")


def damaged(content: bytes, generator: np.random.Generator, others: list[bytes]) -> bytes:
    """Return the content of a file with one or two kinds of damage."""

    def below(end: int) -> int:
        return int(generator.integers(0, max(1, end)))

    data = bytearray(content)
    for _ in range(1 + below(2)):
        place, near, length = below(len(data)), below(min(64, len(data))), 1 + below(200)
        digits = [index for index, byte in enumerate(data) if 48 <= byte <= 57] or [0]
        digit = digits[below(len(digits))]
        flipped = bytes([data[place] ^ 1 << below(8)]) if data else b""
        changes: list[tuple[int, int, bytes]] = [  # first and last byte that are replaced, and by what
            (place, len(data), b""),  # cut
            (place, place + length, b""),
            (place, place + length, bytes(length)),
            (place, place + length, generator.bytes(length)),
            (place, place + 1, flipped),
            (near, near + 4, HUGE[below(len(HUGE))]),
            (near, near + 1, generator.bytes(1)),
            (digit, digit + 1, TEXTS[below(len(TEXTS))]),
            (0, len(data), others[below(len(others))]),  # of another kind
        ]
        first, last, new = changes[below(len(changes))]
        data[first:last] = new
    return bytes(data)


def with_another_header(data: bytes, generator: np.random.Generator) -> bytes:
    """Return a PNG with another size, depth or kind of colour in its header, whose check sum is right."""
    header = bytearray(data[12:29])  # name and content of the first chunk
    place = int(generator.integers(4, 17))
    values = (0, 1, 2, 3, 4, 6, 8, 16, 127, 255)
    header[place] = values[int(generator.integers(0, len(values)))]
    return data[:12] + bytes(header) + zlib.crc32(header).to_bytes(4, "big") + data[33:]


def repacked(data: bytes, kind: str, generator: np.random.Generator) -> bytes:
    """Return a packed file whose content is damaged and whose packing is whole, or that claims to be encrypted."""
    try:
        if "png" in kind or kind == "mask of a palette":
            return with_another_header(data, generator)
        if kind == "packed idx":
            inner = bytearray(gzip.decompress(data))
            inner[4 + int(generator.integers(0, 12))] = int(generator.integers(0, 256))
            return gzip.compress(bytes(inner))
        file = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                inner = bytearray(old.read(name))
                for _ in range(int(generator.integers(1, 4))):
                    inner[int(generator.integers(0, 128))] = int(generator.integers(32, 128))
                new.writestr(name, bytes(inner))
        packed = bytearray(file.getvalue())
        if generator.random() < 0.2:
            for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
                packed[packed.find(mark) + offset] |= 1  # encrypted
        return bytes(packed)
    except (OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError, IndexError, ValueError):
        return data


def single_faults(error: EspalierError) -> list[EspalierError]:
    """Return the faults of an error one by one: a list may have several, and name those of a kind together."""
    parts = getattr(error, "parts", ())
    return [fault for part in parts for fault in single_faults(part)] or [error]


def badly_said(error: EspalierError, names: tuple[str, str]) -> str:
    """Return what is wrong with an error's message: it names neither file nor folder, or has several lines."""
    for part in single_faults(error):
        if not any(name in str(part) for name in names):
            return f"without name: {part}"
        if "\n" in str(part):
            return f"more than one line: {part}"
    return ""


def peak_megabytes() -> float:
    """Return the largest memory that this process has used, in MB."""
    # Not ru_maxrss, which a process inherits from the one that starts it.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def work(name: str, first: int, last: int) -> None:
    """Read files `first` to `last` of a kind; print a line of JSON for each fault, and one for each hundred files."""
    kind = KINDS[name]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, used + ADDRESS_SPACE))
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as place:
        others = [other.make(Path(place)) for other in KINDS.values()]
        whole = kind.make(Path(place))
        folder = Path(place) / "run"
        folder.mkdir()
        (folder / "a.pth").touch()
        if kind.suffix == "environment.json":
            (folder / "config.json").write_text("{}")
        path = folder / (kind.suffix if not kind.suffix.startswith(".") else f"damaged{kind.suffix}")
        path.write_bytes(whole)
        for listed in ("images/{}.jpg", "masks/{}.png"):  # the files of the lists
            (folder / listed).parent.mkdir()
            for number in range(9):
                (folder / listed.format(number)).touch()
        start = peak_megabytes()
        kind.read(path)
        refused, slowest = 0, 0.0
        for number in range(first, last):
            generator = np.random.default_rng([number, *name.encode()])
            is_repacked = number % 3 == 0 and path.suffix in (".npz", ".gz", ".png")
            path.write_bytes(repacked(whole, name, generator) if is_repacked else damaged(whole, generator, others))
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
            began, fault = time.perf_counter(), ""
            try:
                kind.read(path)
            except EspalierError as error:
                refused += 1
                fault = badly_said(error, (path.name, str(folder)))
            except BaseException as error:
                fault = f"{type(error).__name__}: {error}"
            seconds = time.perf_counter() - began
            slowest = max(slowest, seconds)
            if seconds > SECONDS:
                fault = fault or f"{seconds:.1f} s"
            if fault:
                sys.stdout.write(json.dumps({"fault": f"file {number}: {fault[:300]}"}) + "\n")
            if number % CHUNK == CHUNK - 1 or number == last - 1:
                report = {"next": number + 1, "refused": refused, "slowest": slowest, "peak": peak_megabytes() - start}
                sys.stdout.write(json.dumps(report) + "\n")
                refused = 0
            for old in folder.glob(f"{path.name}*"):
                old.unlink()


def run_kind(name: str, files: int, known: dict[str, Any], store: Callable[[], None]) -> None:
    """Read the files of a kind that are not in `known` yet, in processes that may die."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENCV_LOG_LEVEL": "SILENT"}
    while known["next"] < files:
        command = [sys.executable, __file__, "--work", name, str(known["next"]), str(files)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        ) as job:
            assert job.stdout is not None
            current = None
            for line in job.stdout:
                if not line.startswith("{"):
                    current = int(line)
                    continue
                told = json.loads(line)
                if "fault" in told:
                    known["faults"].append(told["fault"])
                else:
                    known["refused"] += told["refused"]
                    known["next"] = told["next"]
                    known["slowest"], known["peak"] = (max(known[key], told[key]) for key in ("slowest", "peak"))
                    store()
        if job.returncode:
            known["faults"].append(f"file {current}: the process died with {job.returncode}")
            known["next"] = files if current is None else current + 1
            store()


def main() -> int:
    """Read damaged files of the kinds that are named, print a table, and return 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10000, metavar="N", help="files of each kind")
    parser.add_argument(
        "--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND", help="default: all"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="stores the counts, and continues from them")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work[0], int(arguments.work[1]), int(arguments.work[2]))
        return 0
    output: Path | None = arguments.output
    require_result_file(output, json_values("next", "refused", "slowest", "peak", "faults"))
    results: dict[str, Any] = json.loads(output.read_text()) if output is not None and output.exists() else {}

    def store() -> None:
        if output is not None:
            output.write_text(json.dumps(results, indent=1))

    print(f"{'kind':<20}{'files':>8}{'refused':>9}{'slowest s':>11}{'peak MB':>9}{'faults':>8}")
    faults = 0
    for name in arguments.kinds:
        known = results.setdefault(name, {"next": 0, "refused": 0, "slowest": 0.0, "peak": 0.0, "faults": []})
        run_kind(name, arguments.files, known, store)
        if known["peak"] > MEGABYTES:
            known["faults"].append(f"{known['peak']:.0f} MB")
        figures = f"{known['slowest']:>11.2f}{known['peak']:>9.0f}{len(known['faults']):>8}"
        print(f"{name:<20}{known['next']:>8}{known['refused']:>9}{figures}", flush=True)
        for fault in known["faults"][:FAULTS_SHOWN]:
            print(f"    {fault}")
        faults += len(known["faults"])
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
