"""MNIST as pytorch-template names it: the four idx files in a folder."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from data_loader.classification.loader import ImageClassificationDataLoader, WholeImageOptions
from data_loader.common.options import ClassOptions, ImageLoaderOptions, ImageOptions
from data_loader.images.preprocessing import Preprocessing
from utils.errors import DataError

DataFolder = Annotated[str, Field(description="Folder of the four files, or that of torchvision's `MNIST/raw`.")]
Training = Annotated[
    bool | None, Field(description="Files of training or of test; `null`: training, in `test_loader` test.")
]
MNIST_IMAGES = ImageOptions(resize=28, in_channels=1)
NO_AUGMENTATION = WholeImageOptions()
_FOLDERS = ("MNIST/raw", "raw", ".")  # the first is torchvision's, below the folder that it is given


class MnistDataLoader(ImageClassificationDataLoader):
    """Batches of the digits of MNIST, or of any data set in files of the same names: (B, 1, 28, 28) and (B,).

    Nothing is downloaded.

    Args:
        data_dir: Folder of the files.
        training: Files of training or of test.
        split: Part of the data that the run asks for, if `training` does not say it.
        labels: Names of the classes.
        images: Conversion to inputs.
        augmentation: Random changes in training.
        loading: Selection, order and loading of the samples.

    Raises:
        DataError: A file is missing or damaged.
    """

    def __init__(
        self,
        data_dir: DataFolder,
        *,
        training: Training = None,
        split: Annotated[str | None, Field(description="As `training`, by name: `train`, `val` or `test`.")] = None,
        labels: ClassOptions = ClassOptions(),
        images: ImageOptions = MNIST_IMAGES,
        augmentation: WholeImageOptions = NO_AUGMENTATION,
        loading: ImageLoaderOptions = ImageLoaderOptions(batch_size=64),
    ) -> None:
        is_training = split not in ("val", "test") if training is None else training
        images_file, labels_file = mnist_files(Path(data_dir), "train" if is_training else "t10k")
        super().__init__(
            images_file=str(images_file),
            labels_file=str(labels_file),
            labels=labels,
            images=images,
            augmentation=augmentation,
            loading=loading,
        )

    @staticmethod
    def make_preprocessing(images: ImageOptions = MNIST_IMAGES) -> Preprocessing:
        """Return the conversion of an image to an input, which needs no data."""
        return Preprocessing(images)


def mnist_files(folder: Path, part: str) -> tuple[Path, Path]:
    """Return the files of images and labels of a part, compressed or not.

    Args:
        folder: That of the files, or the one that holds `MNIST/raw`.
        part: `train` or `t10k`.

    Raises:
        DataError: One of the files is not there.
    """
    names = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    places = [folder / name for name in _FOLDERS]
    found = []
    for name in names:
        candidates = [place / f"{name}{suffix}" for place in places for suffix in ("", ".gz")]
        file = next((each for each in candidates if os.path.isfile(each)), None)
        if file is None:
            raise DataError(
                f"data_dir {folder}: {name} is not there, and nothing is downloaded. Put {' and '.join(names)}, as "
                f"they are or compressed (.gz), into {places[0]} or into {folder}."
            )
        found.append(file)
    return found[0], found[1]
