"""The data of a run of POPNASv3 as sections of loaders."""

from pathlib import PurePath
from typing import Any

from config.faults import Faults, show, unknown_name
from config.loading.popnas_sections import Dataset
from config.loading.popnas_texts import Inert, Tree, options_of

IMAGE_SETS = {
    "cifar10": ("CIFAR10", 3),
    "cifar100": ("CIFAR100", 3),
    "fashion_mnist": ("FashionMNIST", 1),
}
"""Data sets by name: class of torchvision, channels."""

CITYSCAPES = "cityscapes"
CROPS = [0.875, 1.0]
SEGMENTATION_CROPS = [0.5, 1.0]
CUTOUT = 0.125  # side of the square, the fraction that runs use
_SPLITS = {  # of folders: of training, validation and test
    "image_classification": ("keras_training", "keras_validation", "keras_test"),
    "image_segmentation": ("train", "val", "test"),
    "time_series_classification": ("train", "val", "test"),
}


def loaders_of(data: Dataset, faults: Faults, inert: Inert) -> Tree:
    """Return the sections of the loaders: training with a part held out, or with validation data, and test."""
    if data.path is not None and PurePath(data.path).suffix == ".npz" and data.type != "time_series_classification":
        files = "an image and a mask per sample" if data.type == "image_segmentation" else "an image per sample"
        faults.add(
            "dataset.path",
            f"{show(data.path)}: images in one array file are not read. Write {files} into folders, see "
            "docs/popnas_runs.md.",
        )
    build = {
        "image_classification": _images,
        "time_series_classification": _series,
        "image_segmentation": _masks,
    }[data.type]
    kind, common, augmentation, splits = build(data, faults, inert)
    if data.validation_size and data.val_test_batch_size not in (None, data.batch_size):
        inert["dataset.val_test_batch_size"] = "is used for the test; the part held out is evaluated with batch_size"
    if data.ignore_class is not None and kind != "SegmentationDataLoader":
        inert["dataset.ignore_class"] = "is used for masks in folders; Cityscapes has its ids, images and series none"
    if data.val_test_batch_size is None:
        data = data.model_copy(update={"val_test_batch_size": data.batch_size})
    counts = {"batch_size": data.batch_size, **options_of(data, {"samples": "samples"})}
    training = {**common, **counts, **augmentation}
    evaluation = {**common, "batch_size": data.val_test_batch_size, "is_training": False}
    sections: Tree = {}
    if data.validation_size:
        held_out = {**training, **splits[0], "validation_split": data.validation_size}
        sections["data_loader"] = {"type": kind, "args": held_out}
    else:
        sections["train_loader"] = {"type": kind, "args": {**training, **splits[0]}}
        sections["valid_loader"] = {"type": kind, "args": {**evaluation, **splits[1]}}
    if splits[2] is not None:
        sections["test_loader"] = {"type": kind, "args": {**evaluation, **splits[2]}}
    return sections


Parts = tuple[str, Tree, Tree, tuple[Any, Any, Any]]
"""Class of the loaders; arguments of all, for training alone, and by split (no test: None)."""


def _images(data: Dataset, faults: Faults, inert: Inert) -> Parts:
    """Classification: a data set of torchvision, or class folders."""
    common: Tree = {} if data.resize is None else {"resize": [data.resize.height, data.resize.width]}
    if "normalize" in data.model_fields_set:
        common["normalize"] = data.normalize
    common |= _class_names(data, faults)
    common |= {} if data.cache else {"cache_mb": 0}
    known = None if data.name is None else IMAGE_SETS.get(data.name.lower())
    splits: tuple[Any, Any, Any]
    if known is not None:
        common["in_channels"] = known[1]
        train, test = (
            {
                "type": f"torchvision.datasets.{known[0]}",
                "args": {"root": data.path or f"data/{data.name}", "train": part},
            }
            for part in (True, False)
        )
        splits = ({"dataset": train}, {"dataset": test}, {"dataset": test})
        _require_validation_size(data, f"{show(data.name)} has no validation data", faults)
    elif data.path is None:
        faults.add("dataset.name", f"{unknown_name('data set', data.name, IMAGE_SETS)} Or name a folder as path.")
        splits = ({}, {}, {})
    else:
        splits = tuple({"folder": data.path, "split": each} for each in _SPLITS[data.type])  # type: ignore[assignment]
    augmentation: Tree = {}
    if data.data_augmentation.enabled:
        augmentation = {"crop_range": CROPS, "flip_hor": 0.5}
        if data.data_augmentation.use_cutout:
            augmentation["cutout"] = CUTOUT
    _note_scale(data, inert)
    return "ImageClassificationDataLoader", common, augmentation, splits


def _series(data: Dataset, faults: Faults, inert: Inert) -> Parts:
    """Series: a folder of the archives, or an array file."""
    if data.path is None:
        faults.add("dataset.path", "missing. Name the folder of NAME_TRAIN.ts and NAME_TEST.ts, or an .npz file.")
    path = {"path": data.path}
    common: Tree = {"normalize": "variable" if data.normalize else "none", "rescale": data.rescale}
    common |= _class_names(data, faults)
    splits: tuple[Any, Any, Any] = tuple({**path, "split": each} for each in _SPLITS[data.type])  # type: ignore[assignment]
    if data.path is not None and PurePath(data.path).suffix in (".npz", ".ts"):
        splits = (path, path, None)
        _require_validation_size(data, f"{show(data.path)} is one file, without validation data", faults)
    if data.data_augmentation.enabled:
        inert["dataset.data_augmentation.enabled"] = "of images alone; series have crop_range, scaling and jitter"
    if data.resize is not None:
        inert["dataset.resize"] = "of images alone; series have length"
    if not data.cache:
        inert["dataset.cache"] = "series are always in memory"
    return "TimeSeriesDataLoader", common, {}, splits


def _masks(data: Dataset, faults: Faults, inert: Inert) -> Parts:
    """Segmentation: Cityscapes, or folders of images and masks."""
    common: Tree = {} if data.resize is None else {"resize": [data.resize.height, data.resize.width]}
    if "normalize" in data.model_fields_set:
        common["normalize"] = data.normalize
    common |= {} if data.cache else {"cache_mb": 0}
    if data.class_labels_remapping is not None:
        common["label_map"] = data.class_labels_remapping
    kind, folder = "SegmentationDataLoader", data.path
    parts = _SPLITS[data.type]
    if (data.name or "").lower() == CITYSCAPES:
        kind, folder, parts = "CityscapesDataLoader", data.path or "data/cityscapes", ("train", "val", "val")
        _require_validation_size(data, f"{show(data.name)} is tested on its validation data", faults)
    else:
        if data.path is None:
            faults.add("dataset.path", "missing. Name the folder of data/train, labels/train and so on.")
        common |= {} if data.ignore_class is None else {"ignore_index": data.ignore_class}
        common |= {} if data.classes_count is None else {"num_classes": data.classes_count}
    augmentation: Tree = {}
    if data.data_augmentation.enabled:
        augmentation = {"crop_range": SEGMENTATION_CROPS, "flip_hor": 0.5}
    if data.data_augmentation.use_cutout:
        inert["dataset.data_augmentation.use_cutout"] = "of the classification of images alone"
    if data.resize is not None:
        inert["dataset.resize"] = "images are scaled to this size with their aspect ratio, and crops of them are too"
    _note_scale(data, inert)
    splits: tuple[Any, Any, Any] = tuple({"folder": folder, "split": each} for each in parts)  # type: ignore[assignment]
    return kind, common, augmentation, splits


def _class_names(data: Dataset, faults: Faults) -> Tree:
    """Return the names of the classes in the order of their numbers."""
    mapping = data.class_labels_remapping
    if mapping is None:
        return {}
    if sorted(mapping.values()) != list(range(len(mapping))):
        faults.add(
            "dataset.class_labels_remapping",
            f"{show(mapping)}: labels of images and series must be numbered 0, 1, 2, ..., each once. Merge classes in "
            "the files.",
        )
    return {"classes": sorted(mapping, key=lambda name: mapping[name])}


def _require_validation_size(data: Dataset, reason: str, faults: Faults) -> None:
    if not data.validation_size:
        faults.add("dataset.validation_size", f"{show(data.validation_size)}, and {reason}. Add a fraction, as 0.1.")


def _note_scale(data: Dataset, inert: Inert) -> None:
    if data.normalize:
        inert["dataset.normalize"] = "by the mean and deviation of ImageNet, not of this data"
    if "rescale" in data.model_fields_set and not data.rescale:
        inert["dataset.rescale"] = "images are always scaled to 0 to 1"
