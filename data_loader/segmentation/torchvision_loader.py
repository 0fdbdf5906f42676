"""The loader of data sets that torchvision knows."""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from threading import get_ident
from typing import Any

import numpy as np

from data_loader.images.augmentation import Augmentation
from data_loader.images.files import single_channel, whole_labels
from data_loader.images.preprocessing import ColorChannel
from data_loader.segmentation.labels import Labels, count_classes, export_ids
from data_loader.segmentation.loader import Choice, MaskDataLoader, MaskTask, Role
from data_loader.segmentation.pairs import sample_count
from data_loader.segmentation.sources import Header, PairSource
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
    """The samples of a data set of torchvision, each an image and a mask.

    Args:
        dataset: `dataset[index]` is (image, mask), as PIL images or arrays.
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
        """The image's file where the data set tells it, else the number of the sample."""
        name = str(self._files[index]) if index < len(self._files) else f"{self._name}[{index}]"
        return name, f"the mask of {name}"

    def header(self, index: int) -> Header:
        """The sample is decoded for it: the data set has no cheaper way."""
        image, mask = self.image(index), self.mask(index)
        return Header((image.shape[0], image.shape[1]), (mask.shape[0], mask.shape[1]), image.itemsize)

    def image(self, index: int) -> np.ndarray:
        """(h, w, C) uint8 or uint16; RGB but for grey images and, with four channels asked for, RGBA."""
        image = self._sample(index)[0]
        is_deep = str(getattr(image, "mode", "")).startswith("I")
        if hasattr(image, "convert") and self._in_channels != 4 and not is_deep:
            image = image.convert("RGB")
        array = np.asarray(image)
        if array.dtype not in (np.uint8, np.uint16) or array.ndim not in (2, 3):
            raise DataError(
                f"{self.names(index)[0]} is no image of 8 or 16 bits but {array.dtype} of shape {array.shape}. This "
                "loader takes data sets of photos."
            )
        return array.reshape(*array.shape[:2], -1)

    def mask(self, index: int) -> np.ndarray:
        """(h, w) uint8 or uint16; a palette's indices are the ids."""
        name, array = self.names(index)[1], np.asarray(self._sample(index)[1])
        if array.dtype == object or array.ndim not in (2, 3):
            raise DataError(
                f"{name} is no image of class ids. This loader takes data sets of which a sample is an image and a "
                "mask; some have an argument for it (target_type, target_types, mode)."
            )
        return whole_labels(single_channel(array, name), name)

    def _sample(self, index: int) -> tuple[Any, Any]:
        """The sample, decoded once for its image and its mask; each thread remembers its last one."""
        last = self._last.get(get_ident())
        if last is not None and last[0] == index:
            return last[1], last[2]
        try:
            image, target = self._dataset[index]
            for each in (image, target):
                if hasattr(each, "load"):
                    each.load()  # now, and with it the file is closed
        except (OSError, SyntaxError) as error:
            raise DataError(f"{self.names(index)[0]} cannot be read: {error}. Replace the file.") from error
        self._last[get_ident()] = (index, image, target)
        return image, target

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": {}}


def _are_paths(files: Any) -> bool:
    return isinstance(files, list) and all(isinstance(file, str) or hasattr(file, "__fspath__") for file in files[:1])


# The classes of PASCAL VOC in the order of their ids; borders and what is hard to tell are 255.
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
KNOWN_CLASSES = {f"torchvision.datasets.{name}": VOC_CLASSES for name in ("VOCSegmentation", "SBDataset")}


class TorchvisionSegmentationDataLoader(MaskDataLoader):
    """Batches of a data set of torchvision whose samples are an image and a mask.

    Args:
        source: `torchvision.datasets.NAME`, e.g. `torchvision.datasets.VOCSegmentation`.
        args: Its arguments, e.g. `{"root": "data", "image_set": "train"}`; downloaded only with `"download": true`.
        samples: Only the first so many samples.
        num_classes: Classes in the masks; known of VOCSegmentation and SBDataset.
        classes: Names of the classes, in the order of their ids; known as well.
        ignore_index: Value in the masks that counts nowhere.
        label_map: Value in the masks -> class, as `{"1": 0, "2": 1}`; every other value is ignored.
        folds: `{"fold": 0, "of": 5}`: training takes the other folds, validation and test that one.
        role: "train", "valid" or "test"; where not given, by the section that names the loader.
        sparse: Hide labels in training, as `{"pattern": "halves", "density": 0.5}`; see `data_loader.sparse`.
        in_channels: 1, 3 or 4; where not given, what `color_channel` implies.
        color_channel: "RGB", "BGR" or "GRAY".
        resize: Size of the input, `[height, width]` or one number for a square, aspect ratio kept; null: own sizes.
        padding_value: Grey of the padding around images of another shape, 0 to 255.
        normalize: Subtract ImageNet's mean and divide by its deviation; otherwise 0..1.
        is_training: Augment and shuffle; otherwise evaluate.
        noise_std: As the following ones, see `data_loader.transforms.Augmentation`.
        crop_range: Share of the image's sides that a random window has, [smallest, largest].
        flip_hor: Probability of a left-right flip.
        rotate: Probability of a quarter turn.
        angle: Largest rotation in degrees.
        brightness: Largest change of brightness, a share.
        contrast: Largest change of contrast, a share.
        saturation: Largest change of saturation, a share.
        transforms: Albumentations' transforms, in order, before the augmentation above; in training only.
        batch_size: Samples per batch, over all processes.
        shuffle: New order in each epoch; where not given, in training.
        drop_last: Leave out an incomplete last batch.
        validation_split: Share or number of samples held out for `split_validation`.
        n_workers: Worker processes.
        pin_memory: Page-locked batches, where there is CUDA.
        cache_mb: Most memory for decoded images; null: a quarter of what is free.
        seed: Seed of the run.

    Raises:
        ConfigError: An argument is out of its range, or two of them disagree.
        DataError: The data set is not there.
    """

    def __init__(
        self,
        source: str,
        args: Mapping[str, Any] | None = None,
        *,
        samples: int | None = None,
        num_classes: int | None = None,
        classes: Sequence[str] | None = None,
        ignore_index: int | None = 255,
        label_map: Mapping[str, int] | None = None,
        folds: Mapping[str, Any] | None = None,
        role: Role | None = None,
        sparse: Mapping[str, Any] | None = None,
        in_channels: int | None = None,
        color_channel: ColorChannel | None = None,
        resize: int | Sequence[int] | None = None,
        padding_value: int = 0,
        normalize: bool = True,
        is_training: bool = True,
        noise_std: float = 0.0,
        crop_range: Sequence[float] | None = None,
        flip_hor: float = 0.0,
        rotate: float = 0.0,
        angle: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        transforms: Sequence[Any] = (),
        batch_size: int = 16,
        shuffle: bool | None = None,
        drop_last: bool = False,
        validation_split: int | float = 0.0,
        n_workers: int = 0,
        pin_memory: bool = False,
        cache_mb: int | None = None,
        seed: int = 0,
    ) -> None:
        opened = open_dataset(source, args or {})
        known = KNOWN_CLASSES.get(source, ()) if label_map is None else ()
        if num_classes in (None, len(known)):
            classes = classes or known
        count, names = count_classes(num_classes, classes, label_map=label_map)
        labels = Labels(count, ignore_index, label_map=label_map)
        preprocessing = self.make_preprocessing(
            resize=resize,
            padding_value=padding_value,
            color_channel=color_channel,
            normalize=normalize,
            in_channels=in_channels,
        )
        augmentation = Augmentation(
            noise_std=noise_std,
            crop_range=crop_range,
            flip_hor=flip_hor,
            rotate=rotate,
            angle=angle,
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
        )
        pairs = TorchvisionPairs(
            opened, source, count=sample_count(len(opened), samples), in_channels=preprocessing.in_channels
        )
        super().__init__(
            MaskTask(pairs, preprocessing, labels, names),
            augmentation,
            transforms=transforms,
            choice=Choice(folds, role, sparse, validation_split),
            is_training=is_training,
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            n_workers=n_workers,
            pin_memory=pin_memory,
            cache_mb=cache_mb,
            seed=seed,
        )

    @staticmethod
    def make_export_ids(*, label_map: Mapping[str, int] | None = None) -> list[int] | None:
        """The masks' own value for each class; None where it is the same."""
        return export_ids(label_map)
