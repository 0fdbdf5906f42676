"""Data sets of torchvision that give a picture and its mask."""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from threading import get_ident
from typing import Any

import numpy as np

from data_loader.pictures import single_channel, whole_labels
from data_loader.sources import Header, PairSource
from utils.errors import ConfigError, DataError

ROOT = "torchvision.datasets"
_NOT_HERE = ("transform", "target_transform", "transforms", "loader")


def open_dataset(name: str, arguments: Mapping[str, Any]) -> Any:
    """Make a data set of torchvision.

    Args:
        name: `torchvision.datasets.NAME`; nothing else is ever imported.
        arguments: Of its class. It is only downloaded where `download` is true among them.

    Raises:
        ConfigError: There is no such data set, or it does not take these arguments.
        DataError: Its files are not there.
    """
    dataset_class = _dataset_class(name)
    parameters = inspect.signature(dataset_class).parameters
    for argument in arguments:
        if argument not in parameters or argument in _NOT_HERE:
            known = ", ".join(each for each in parameters if each not in _NOT_HERE)
            raise ConfigError(f"args of {name}: {argument!r} is none of them here. It has {known}.")
    silent = {"download": False} if "download" in parameters else {}
    try:
        return dataset_class(**{**silent, **arguments})
    except (RuntimeError, OSError) as error:
        hint = ' Set "download": true in args to fetch it.' if silent and not arguments.get("download") else ""
        raise DataError(f"{name} cannot be opened: {error} Correct root in args.{hint}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} refuses {dict(arguments)}: {error}. Correct args.") from error


def _dataset_class(name: str) -> Any:
    module_name, _, class_name = name.rpartition(".")
    module = importlib.import_module(ROOT)
    found = vars(module).get(class_name) if module_name == ROOT and not class_name.startswith("_") else None
    if not (inspect.isclass(found) and issubclass(found, module.VisionDataset)):
        raise ConfigError(
            f"{name!r} is no data set of torchvision. Write {ROOT}.VOCSegmentation or another class there."
        )
    return found


class TorchvisionPairs(PairSource):
    """The samples of a data set of torchvision, each a picture and a mask.

    Args:
        dataset: `dataset[index]` is (picture, mask), as PIL images or arrays.
        name: What to call it.
        count: Only the first so many.
        in_channels: Channels of the network's input.
    """

    def __init__(self, dataset: Any, name: str, *, count: int, in_channels: int) -> None:
        self._dataset = dataset
        self._name = name
        self._count = count
        self._in_channels = in_channels
        self._last: dict[int, tuple[int, Any, Any]] = {}
        lists = [getattr(dataset, each, None) for each in ("images", "_images")]
        self._files: Sequence[Any] = next((files for files in lists if files is not None and _are_paths(files)), ())

    def __len__(self) -> int:
        return self._count

    def names(self, index: int) -> tuple[str, str]:
        """The picture's file where the data set tells it, else the number of the sample."""
        name = str(self._files[index]) if index < len(self._files) else f"{self._name}[{index}]"
        return name, f"the mask of {name}"

    def header(self, index: int) -> Header:
        """The sample is decoded for it: the data set has no cheaper way."""
        picture, mask = self.picture(index), self.mask(index)
        return Header((picture.shape[0], picture.shape[1]), (mask.shape[0], mask.shape[1]), picture.itemsize)

    def picture(self, index: int) -> np.ndarray:
        """(h, w, C) uint8 or uint16; RGB but for grey pictures and, with four channels asked for, RGBA."""
        picture = self._sample(index)[0]
        is_deep = str(getattr(picture, "mode", "")).startswith("I")
        if hasattr(picture, "convert") and self._in_channels != 4 and not is_deep:
            picture = picture.convert("RGB")
        array = np.asarray(picture)
        if array.dtype not in (np.uint8, np.uint16) or array.ndim not in (2, 3):
            raise DataError(
                f"{self.names(index)[0]} is no picture of 8 or 16 bits but {array.dtype} of shape {array.shape}. This "
                "loader takes data sets of photos."
            )
        return array.reshape(*array.shape[:2], -1)

    def mask(self, index: int) -> np.ndarray:
        """(h, w) uint8 or uint16; a palette's indices are the ids."""
        name, array = self.names(index)[1], np.asarray(self._sample(index)[1])
        if array.dtype == object or array.ndim not in (2, 3):
            raise DataError(
                f"{name} is no picture of class ids. This loader takes data sets of which a sample is a picture and a "
                "mask; some have an argument for it (target_type, target_types, mode)."
            )
        return whole_labels(single_channel(array, name), name)

    def _sample(self, index: int) -> tuple[Any, Any]:
        """The sample, decoded once for its picture and its mask; each thread remembers its last one."""
        last = self._last.get(get_ident())
        if last is not None and last[0] == index:
            return last[1], last[2]
        try:
            picture, target = self._dataset[index]
            for each in (picture, target):
                if hasattr(each, "load"):
                    each.load()  # now, and with it the file is closed
        except (OSError, SyntaxError) as error:
            raise DataError(f"{self.names(index)[0]} cannot be read: {error}. Replace the file.") from error
        self._last[get_ident()] = (index, picture, target)
        return picture, target

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": {}}


def _are_paths(files: Any) -> bool:
    return isinstance(files, list) and all(isinstance(file, str) or hasattr(file, "__fspath__") for file in files[:1])
