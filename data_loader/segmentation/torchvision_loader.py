"""The loader of data sets of torchvision."""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from http.client import HTTPException
from os import PathLike
from threading import get_ident
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from data_loader.common.options import (
    AugmentationOptions,
    ImageOptions,
    MaskLabelOptions,
    MaskLoaderOptions,
    require_whole_decoding,
)
from data_loader.images.files import DAMAGED_FILE_ERRORS, photo_of
from data_loader.images.masks import mask_labels
from data_loader.segmentation.labels import Labels
from data_loader.segmentation.loader import MaskDataLoader
from data_loader.segmentation.pairs import Header, PairSource
from utils.environment import is_network_error, not_fetched
from utils.errors import ConfigError, DataError

ROOT = "torchvision.datasets"
_REFUSED_ARGUMENTS = ("transform", "target_transform", "transforms", "loader")


def open_dataset(name: str, arguments: Mapping[str, Any]) -> Any:
    """Build a data set of torchvision.

    Args:
        name: `torchvision.datasets.NAME`; nothing else is ever imported.
        arguments: Of its class. It is only downloaded if `download` is true among them.

    Raises:
        ConfigError: There is no such data set, or it does not take these arguments.
        DataError: Its files are missing, or cannot be fetched.
    """
    module_name, _, class_name = name.rpartition(".")
    module = importlib.import_module(ROOT)
    found: Any = vars(module).get(class_name) if module_name == ROOT and not class_name.startswith("_") else None
    if not (inspect.isclass(found) and issubclass(found, module.VisionDataset)):
        raise ConfigError(
            f"{name!r} is not a data set of torchvision. Write {ROOT}.VOCSegmentation or another class there."
        )
    parameters = inspect.signature(found).parameters
    for argument in arguments:
        if argument not in parameters or argument in _REFUSED_ARGUMENTS:
            known = ", ".join(each for each in parameters if each not in _REFUSED_ARGUMENTS)
            raise ConfigError(f"args of {name}: {argument!r} is none of them here. It has {known}.")
    silent = {"download": False} if "download" in parameters else {}
    try:
        return found(**{**silent, **arguments})
    except (RuntimeError, OSError, HTTPException) as error:
        if is_network_error(error):
            raise DataError(not_fetched(name, error)) from error
        hint = ' Set "download": true in args to fetch it.' if silent and not arguments.get("download") else ""
        raise DataError(f"{name} cannot be opened: {error} Correct root in args.{hint}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} refuses {dict(arguments)}: {error}. Correct args.") from error


class TorchvisionPairs(PairSource):
    """The samples of a data set of torchvision, each an image and a mask.

    Args:
        dataset: `dataset[index]` is (image, mask), as PIL images or arrays.
        name: Its name in messages.
        count: Number of samples to use, from the first.
        in_channels: Channels of the network's input.
    """

    def __init__(self, dataset: Any, name: str, *, count: int, in_channels: int) -> None:
        self._dataset = dataset
        self._name = name
        self._count = count
        self._in_channels = in_channels
        self._last: dict[int, tuple[int, Any, Any]] = {}  # thread -> index, image, mask
        # Data sets store the paths of their images under one of these names, or have no files.
        lists = [getattr(dataset, each, None) for each in ("images", "_images")]
        paths = [
            each for each in lists if isinstance(each, list) and all(isinstance(p, str | PathLike) for p in each[:1])
        ]
        self._files: Sequence[Any] = paths[0] if paths else ()

    def __len__(self) -> int:
        return self._count

    def names(self, index: int) -> tuple[str, str]:
        """Return the image's file if the data set names it, else the number of the sample."""
        name = str(self._files[index]) if index < len(self._files) else f"{self._name}[{index}]"
        return name, f"the mask of {name}"

    def header(self, index: int) -> Header:
        """Return the sizes of the decoded sample: the data set has no cheaper way."""
        image, mask = self.image(index), self.mask(index)
        return Header((image.shape[0], image.shape[1]), (mask.shape[0], mask.shape[1]), image.itemsize)

    def image(self, index: int) -> np.ndarray:
        """Return (h, w, C) uint8 or uint16: RGB, except grey images and, for four channels, RGBA."""
        image = self._sample(index)[0]
        is_deep = str(getattr(image, "mode", "")).startswith("I")
        if hasattr(image, "convert") and self._in_channels != 4 and not is_deep:
            image = image.convert("RGB")
        elif hasattr(image, "convert"):
            image = photo_of(image, self._in_channels)
        array = np.asarray(image)
        if array.dtype not in (np.uint8, np.uint16) or array.ndim not in (2, 3):
            raise DataError(
                f"{self.names(index)[0]} is not an image of 8 or 16 bits but {array.dtype} of shape {array.shape}. "
                "This loader takes data sets of photos. Name another one."
            )
        return array.reshape(*array.shape[:2], -1)

    def mask(self, index: int) -> np.ndarray:
        """Return (h, w) uint8 or uint16; a palette's indices are the ids."""
        name, array = self.names(index)[1], np.asarray(self._sample(index)[1])
        if array.dtype == object or array.ndim not in (2, 3):
            raise DataError(
                f"{name} is not an image of class ids. This loader takes data sets of which a sample is an image and a "
                "mask; some have an argument for it (target_type, target_types, mode)."
            )
        return mask_labels(array, name)

    def _sample(self, index: int) -> tuple[Any, Any]:
        """Return a sample, decoded once for its image and its mask: each thread remembers its last one."""
        last = self._last.get(get_ident())
        if last is not None and last[0] == index:
            return last[1], last[2]
        try:
            image, target = self._dataset[index]
            for each in (image, target):
                if hasattr(each, "load"):
                    each.load()  # PIL reads a file lazily; this also closes it
        except DAMAGED_FILE_ERRORS as error:
            raise DataError(f"{self.names(index)[0]} cannot be read: {error}. Replace the file.") from error
        self._last[get_ident()] = (index, image, target)
        return image, target

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": {}}


# The classes of PASCAL VOC in the order of their ids; borders and ambiguous pixels are 255.
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
KNOWN_CLASSES = {f"torchvision.datasets.{name}": VOC_CLASSES for name in ("VOCSegmentation", "SBDataset")}


class TorchvisionSegmentationDataLoader(MaskDataLoader):
    """A loader of batches of a data set of torchvision whose samples are an image and a mask; see `MaskDataLoader`.

    Args:
        source: `torchvision.datasets.NAME`, e.g. `torchvision.datasets.VOCSegmentation`.
        args: Its arguments, e.g. `{"root": "data", "image_set": "train"}`; downloaded only with `"download": true`.
        labels: Classes and values of the masks; number and names are known for VOCSegmentation and SBDataset.
        images: Conversion of an image to an input.
        augmentation: Random changes in training.
        loading: Selection, order and loading of the samples.

    Raises:
        ConfigError: An argument is out of its range, or two of them disagree.
        DataError: The data set is missing.
    """

    def __init__(
        self,
        source: Annotated[str, Field(description="`torchvision.datasets.NAME`.")],
        args: Annotated[Mapping[str, Any] | None, Field(description="Arguments of its class.")] = None,
        *,
        labels: MaskLabelOptions = MaskLabelOptions(ignore_index=255),
        images: ImageOptions = ImageOptions(),
        augmentation: AugmentationOptions = AugmentationOptions(),
        loading: MaskLoaderOptions = MaskLoaderOptions(),
    ) -> None:
        require_whole_decoding(images, "a data set of torchvision")
        opened = open_dataset(source, args or {})
        known = KNOWN_CLASSES.get(source, ()) if labels.label_map is None else ()
        if labels.num_classes in (None, len(known)):
            labels = replace(labels, classes=labels.classes or known)
        preprocessing = self.make_preprocessing(images)
        count = len(range(len(opened))[: loading.samples])
        pairs = TorchvisionPairs(opened, source, count=count, in_channels=preprocessing.in_channels)
        super().__init__(pairs, preprocessing, Labels(labels), augmentation, loading)
