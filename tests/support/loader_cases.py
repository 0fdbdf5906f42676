"""For every loader of the registry: how to make a small one. A loader that is added there gets its case here.

A case is a function (folder, arguments) -> arguments of the class, with the files that they need written to the folder.
It holds seven training samples or more, of one size after loading.
"""

import gzip

import numpy as np
from PIL import Image

SIZE = (12, 16)
COUNT = 7


def random_image(number, size=SIZE):
    return np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)


def random_mask(number, values, size=SIZE):
    return np.random.default_rng(100 + number).choice(np.asarray(values, np.uint8), size)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)


def pairs_list(folder):
    for number in range(COUNT):
        save(folder / f"{number}.png", random_image(number))
        save(folder / f"{number}_mask.png", random_mask(number, [0, 1, 255]))
    lines = [f"{number}.png, {number}_mask.png" for number in range(COUNT)]
    (folder / "pairs.txt").write_text("\n".join(lines))
    return {"pairs_file": str(folder / "pairs.txt"), "num_classes": 2, "ignore_index": 255, "flip_hor": 0.5, "angle": 9}


def arrays(folder):
    for split in ("train", "val"):
        for number in range(COUNT):
            values = np.random.default_rng(number).random((*SIZE, 6), dtype=np.float32)
            save(folder / f"data/{split}/{number}.npy", values)
            save(folder / f"labels/{split}/{number}.npy", random_mask(number, [0, 1, 2]))
    return {
        "folder": str(folder),
        "num_classes": 3,
        "mean": 0.5,
        "std": 0.3,
        "flip_hor": 0.5,
        "rotate": 0.5,
        "resize": 12,
    }


def cityscapes(folder, splits=("train", "val"), cities=("aachen", "bonn"), size=SIZE):
    """The folders as they are unpacked: raw ids, of which most are no class."""
    for split in splits:
        for number in range(COUNT):
            city = cities[number % len(cities)]
            frame = f"{city}_{number:06d}_000019"
            save(folder / f"leftImg8bit/{split}/{city}/{frame}_leftImg8bit.png", random_image(number, size))
            ids = random_mask(number, range(34), size)
            save(folder / f"gtFine/{split}/{city}/{frame}_gtFine_labelIds.png", ids)
    return {"folder": str(folder), "flip_hor": 0.5, "brightness": 0.1}


def voc(folder):
    """The tree of PASCAL VOC 2012; masks have a palette and borders of 255."""
    base = folder / "VOCdevkit/VOC2012"
    names = [f"2007_{number:06d}" for number in range(COUNT)]
    for number, name in enumerate(names):
        save(base / f"JPEGImages/{name}.jpg", random_image(number))
        mask = Image.fromarray(random_mask(number, [0, 15, 20, 255]))
        mask.putpalette([value for level in range(256) for value in (level, 255 - level, level // 2)])
        (base / "SegmentationClass").mkdir(parents=True, exist_ok=True)
        mask.save(base / f"SegmentationClass/{name}.png")
    for split in ("train", "val"):
        (base / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (base / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names) + "\n")
    args = {"root": str(folder), "year": "2012", "image_set": "train"}
    return {"source": "torchvision.datasets.VOCSegmentation", "args": args, "flip_hor": 0.5, "contrast": 0.2}


def class_folders(folder):
    for part in ("train", "val"):
        for number in range(COUNT + 1):
            save(folder / part / ("left", "right")[number % 2] / f"{number}.png", random_image(number))
    return {"folder": str(folder), "flip_hor": 0.5, "shift": 0.2, "cutout": 0.3, "brightness": 0.1}


def series(folder):
    """Two variables of nine steps each, rising or falling."""
    for part in ("TRAIN", "VAL"):
        lines = ["@problemName Toy", "@univariate false", "@dimensions 2", "@classLabel true rise fall", "@data"]
        for number in range(COUNT + 1):
            values = np.random.default_rng(number).normal(size=(2, 9)) + (1 - 2 * (number % 2)) * np.arange(9)
            text = ":".join(",".join(f"{value:.3f}" for value in row) for row in values)
            lines.append(f"{text}:{('rise', 'fall')[number % 2]}")
        (folder / f"Toy_{part}.ts").write_text("\n".join(lines) + "\n")
    return {"path": str(folder), "normalize": "series", "jitter": 0.1, "scaling": 0.1}


def idx_bytes(values):
    """A uint8 array as an idx file holds it."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes((0, 0, 8, values.ndim)) + sizes + values.tobytes()


def mnist(folder, count=COUNT):
    """Made-up files of the names of MNIST's, the training compressed, where torchvision puts them."""
    place = folder / "MNIST/raw"
    place.mkdir(parents=True)
    for part, pack in (("train", gzip.compress), ("t10k", bytes)):
        suffix = ".gz" if part == "train" else ""
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.random.default_rng(0).integers(0, 60, (count, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):  # a bar for each digit, so that it can be learned
            image[:, 2 * label + 2 : 2 * label + 6] = 255
        (place / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(idx_bytes(images)))
        (place / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(labels)))
    return {"data_dir": str(folder), "flip_hor": 0.5, "shift": 0.2}


CASES = {
    "MnistDataLoader": mnist,
    "ImageClassificationDataLoader": class_folders,
    "TimeSeriesDataLoader": series,
    "SegmentationDataLoader": pairs_list,
    "ArraySegmentationDataLoader": arrays,
    "CityscapesDataLoader": cityscapes,
    "TorchvisionSegmentationDataLoader": voc,
}
