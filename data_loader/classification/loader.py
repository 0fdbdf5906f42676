"""The loader of images with one class each."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from base.base_data_loader import BaseDataLoader, Task
from data_loader.classification.dataset import (
    ClassificationCollate,
    ImageAugmentation,
    LabelledImageDataset,
    WholeImageOptions,
)
from data_loader.classification.sources import DatasetImages, IdxImages, ImageSource, find_in_folders, read_list
from data_loader.common.class_labels import NO_CLASS, checked_classes, first_of_each_class, label_ids
from data_loader.common.options import ClassOptions, ImageLoaderOptions, ImageOptions
from data_loader.images.preprocessing import Preprocessing
from utils.errors import ConfigError

ClassFolder = Annotated[
    str | None, Field(description="Folder of class folders, or with `train`, `val`, `test` of them.")
]
ListFile = Annotated[str | None, Field(description="List with one `path, class` per line.")]
ImagesFile = Annotated[str | None, Field(description="Idx file of images, as of MNIST, compressed (`.gz`) or not.")]
LabelsFile = Annotated[str | None, Field(description="Idx file of their classes.")]
TorchvisionDataset = Annotated[Any, Field(description='As `{"type": "torchvision.datasets.CIFAR10", "args": {...}}`.')]
Split = Annotated[str | None, Field(description="Part of the folder; `null`: by `is_training`, train or val.")]
DataRoot = Annotated[str | None, Field(description="Folder that the paths are relative to.")]


class ImageClassificationDataLoader(BaseDataLoader):
    """Batches of images and their classes, from one of four sources: `folder`, `list_file`, idx files, `dataset`.

    Training batches are (images (B, C, H, W) float32, classes (B,) int64), with `mixup` weights of the classes (B, K)
    float32. With `is_training` false nothing is augmented, and a batch has a third part: a list of
    `base.samples.NamedSample`. Without `classes`, their names are those of the training data. With `samples`,
    images are taken from the classes in turn.

    Args:
        folder: Folder with one folder per class, or with `train`, `val` and `test` that contain these.
        list_file: List with one `path, class` per line.
        images_file: Idx file of images.
        labels_file: Idx file of their classes.
        dataset: Data set of torchvision.
        split: Part of the folder.
        data_root: Folder that other paths are relative to.
        labels: Names of the classes.
        images: Conversion to inputs.
        augmentation: Random changes in training.
        loading: Selection, order and loading of the samples.

    Raises:
        ConfigError: An option is out of its range, or there is not exactly one source.
        DataError: The source does not hold images with classes.
    """

    task: Task = "classification"

    def __init__(
        self,
        folder: ClassFolder = None,
        *,
        list_file: ListFile = None,
        images_file: ImagesFile = None,
        labels_file: LabelsFile = None,
        dataset: TorchvisionDataset = None,
        split: Split = None,
        data_root: DataRoot = None,
        labels: ClassOptions = ClassOptions(),
        images: ImageOptions = ImageOptions(),
        augmentation: WholeImageOptions = WholeImageOptions(),
        loading: ImageLoaderOptions = ImageLoaderOptions(batch_size=64),
    ) -> None:
        preprocessing = self.make_preprocessing(images)
        # One of the two idx files alone is an error as well.
        has_idx = images_file is not None or labels_file is not None
        given = (folder is not None) + (list_file is not None) + has_idx + (dataset is not None)
        source: ImageSource
        if given != 1 or (images_file is None) != (labels_file is None):
            raise ConfigError(
                f"{given} sources are given: images come from exactly one. Set folder, list_file, dataset, or "
                "images_file and labels_file together."
            )
        if folder is not None:
            source = find_in_folders(Path(data_root or "") / folder, split or loading.default_split)
        elif list_file is not None:
            source = read_list(list_file, data_root)
        elif dataset is not None:
            source = DatasetImages(dataset)
        else:
            source = IdxImages(str(images_file), str(labels_file))
        names = checked_classes(labels.classes or (), source.classes)
        are_ids = all(name.isdecimal() and int(name) < len(names) for name in source.classes)
        if are_ids and not set(source.classes) <= set(names):
            # The data has numbers, and the config gives their names.
            source.labels, source.classes = [names[int(label)] for label in source.labels], names
        source = source.select(first_of_each_class(source.labels, loading.samples))
        ids = label_ids(source.labels, names, source.names.__getitem__)
        # Both, because `split_validation` evaluates samples of a loader that trains.
        plain = LabelledImageDataset(source, ids, preprocessing, cache_mb=loading.cache_mb)
        changes = ImageAugmentation(augmentation, preprocessing)
        augmented = LabelledImageDataset(source, ids, preprocessing, augmentation=changes, cache_mb=loading.cache_mb)
        super().__init__(
            augmented if loading.is_training else plain,
            collate_fn=ClassificationCollate(preprocessing, len(names), augmentation.mixup),
            validation_dataset=plain,
            **loading.base_arguments(),
        )
        self.num_classes, self.class_names = len(names), names
        self.in_channels = preprocessing.in_channels
        self.ignore_index = NO_CLASS
        self.preprocessing = preprocessing
        self.learned = {"classes": names}

    @staticmethod
    def make_preprocessing(images: ImageOptions = ImageOptions()) -> Preprocessing:
        """Return the conversion of an image to an input, which needs no data."""
        return Preprocessing(images)
