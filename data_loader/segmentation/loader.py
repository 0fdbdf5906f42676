"""The loader of images and masks, and its base class for all kinds of mask data."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from base.base_data_loader import BaseDataLoader
from data_loader.common.folds import Folds
from data_loader.common.options import (
    AugmentationOptions,
    ImageOptions,
    LabelOptions,
    MaskLoaderOptions,
    PairOptions,
    WarpOptions,
)
from data_loader.images.augmentation import Augmentation
from data_loader.images.preprocessing import Preprocessing
from data_loader.segmentation.dataset import PairDecoder, SegmentationCollate, SegmentationDataset
from data_loader.segmentation.labels import Labels, export_ids
from data_loader.segmentation.pairs import ImagePairs, PairSource, choose_pairs
from data_loader.segmentation.sparse_labels import SparseLabels
from utils.errors import ConfigError


class MaskDataLoader(BaseDataLoader):
    """A loader of batches of images and masks.

    Training batches are (images (B, C, H, W) float32, masks (B, H, W) int64). With `is_training` false nothing is
    augmented and no label hidden, and a batch has a third part: a list of `base.samples.NamedMask` with each mask
    at its original size.

    Args:
        source: Images and masks.
        preprocessing: Converts an image to a network's input.
        labels: Classes of the masks.
        augmentation: Random changes in training.
        loading: Selection, order and loading of the samples.

    Raises:
        ConfigError: An option is out of its range, or two of them disagree.
        DataError: There is no sample.
    """

    def __init__(
        self,
        source: PairSource,
        preprocessing: Preprocessing,
        labels: Labels,
        augmentation: WarpOptions,
        loading: MaskLoaderOptions,
    ) -> None:
        sparse = None if loading.sparse is None else SparseLabels.parse(loading.sparse, loading.seed)
        plain = SegmentationDataset(PairDecoder(source, preprocessing, labels, has_whole_masks=True), loading)
        augmented = SegmentationDataset(
            PairDecoder(source, preprocessing, labels, has_whole_masks=False, sparse=sparse),
            loading,
            Augmentation(augmentation, preprocessing, labels.ignored),
        )
        # Indices to draw from and indices held out; None: all, and those of `validation_split`.
        indices = held_out = None
        if loading.folds is not None:
            if loading.validation_split:
                raise ConfigError("folds and validation_split both hold samples out. Remove one of them.")
            others, fold = Folds.parse(loading.folds, loading.seed).split(len(source))
            trains = loading.is_training if loading.role is None else loading.role == "train"
            indices, held_out = (others, fold) if trains else (fold, fold[:0])
        super().__init__(
            augmented if loading.is_training else plain,
            collate_fn=SegmentationCollate(preprocessing),
            validation_dataset=plain,
            indices=indices,  # type: ignore[arg-type]
            **loading.base_arguments(),
        )
        if held_out is not None:
            self._held_out = held_out
        self.num_classes = labels.num_classes
        self.in_channels = preprocessing.in_channels
        self.ignore_index = labels.ignored
        self.class_names = labels.class_names
        self.preprocessing = preprocessing

    @property
    def labelled_megapixels(self) -> float | None:
        """Millions of pixels with a class that this loader trains on; None if no labels are hidden on purpose."""
        megapixels: float | None = self.dataset.dataset.labelled_megapixels
        return megapixels

    @staticmethod
    def make_preprocessing(images: ImageOptions = ImageOptions()) -> Preprocessing:
        """Return the conversion of an image to an input, without any data."""
        return Preprocessing(images)

    @staticmethod
    def make_export_ids(*, label_map: Mapping[str, int] | None = None) -> list[int] | None:
        """Return the masks' value for each class, for predictions in the data set's ids; None if it is the same."""
        return export_ids(label_map)


class SegmentationDataLoader(MaskDataLoader):
    """A loader of batches of photos and masks, which are image files; see `MaskDataLoader`.

    Args:
        files: List of the files, see `data_loader.segmentation.pairs.read_pairs`, or a folder with
            `data/{split}/NAME.*` and `labels/{split}/NAME.png`.
        labels: Classes and values of the masks.
        images: Conversion of an image to an input.
        augmentation: Random changes in training.
        loading: Selection, order and loading of the samples.
        one_hot: Only false, an argument of an older dialect.

    Raises:
        ConfigError: An argument is out of its range, or two of them disagree.
        DataError: A file is missing, damaged, or does not fit the others.
    """

    def __init__(
        self,
        files: PairOptions = PairOptions(),
        *,
        labels: LabelOptions = LabelOptions(),
        images: ImageOptions = ImageOptions(),
        augmentation: AugmentationOptions = AugmentationOptions(),
        loading: MaskLoaderOptions = MaskLoaderOptions(),
        one_hot: Annotated[bool, Field(description="Only `false`: losses take class ids.")] = False,
    ) -> None:
        if one_hot:
            raise ConfigError("one_hot is true, but every loss here takes class ids. Set one_hot to false.")
        classes = Labels(labels)
        preprocessing = self.make_preprocessing(images)
        # A JPEG mask is read as black and white, which leaves no third value for ignored pixels.
        is_binary = labels.binary_masks and labels.ignore_index is None
        source = ImagePairs(choose_pairs(files, loading), in_channels=preprocessing.in_channels, is_binary=is_binary)
        super().__init__(source, preprocessing, classes, augmentation, loading)
