"""The loader of time series. B batch, V variables, T steps."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from base.base_data_loader import BaseDataLoader, Task
from base.samples import NamedSample, RawSample, split_indices
from data_loader.common.class_labels import (
    NO_CLASS,
    LabelledDataset,
    checked_classes,
    first_of_each_class,
    list_label_ids,
)
from data_loader.common.folds import divide_samples
from data_loader.common.image_cache import read_once
from data_loader.common.options import ClassOptions, LoaderOptions, Options
from data_loader.time_series.files import SeriesFile, Values, find_series_file, list_series
from data_loader.time_series.preprocessing import STATISTICS, SeriesOptions, SeriesPreprocessing, learned_statistics
from utils.errors import ConfigError, EspalierError
from utils.geometry import Size

SeriesPath = Annotated[str, Field(description="A `.ts` or `.npz` file, or a folder of the archives.")]
SeriesSplit = Annotated[
    str | None, Field(description='Of a folder: `"train"`, `"val"`, `"test"`; `null`: by `is_training`, train or val.')
]


class PlacedSeries(NamedTuple):
    """A series as an input of the network.

    Attributes:
        values: (V, T) float32.
        label: Id of its class.
        origin: Its name and index, in evaluation.
    """

    values: NDArray[np.float32]
    label: int
    origin: NamedSample | None = None


@dataclass(frozen=True)
class SeriesAugmentation(Options):
    """Augmentation of series in training; the default is none."""

    crop_range: Annotated[
        Sequence[float] | None,
        Field(description="Length of a random window, `[smallest, largest]` fraction of it all."),
    ] = None
    scaling: Annotated[float, Field(ge=0, description="Deviation of a random factor of each variable.")] = 0.0
    jitter: Annotated[float, Field(ge=0, description="Deviation of noise, after normalisation.")] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        window = self.crop_range
        if window is not None and not (len(window) == 2 and 0.0 < window[0] <= window[1] <= 1.0):
            raise ConfigError(
                f"Wrong crop_range {list(window)}: it must be [smallest, largest] fraction of a series, above 0 and at "
                "most 1, as in [0.9, 1.0]."
            )

    def __call__(
        self, series: Values, preprocessing: SeriesPreprocessing, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Cut a window out of (V, T), convert it to an input, and change its values."""
        # Drawn even if they are not used, so that switching on one effect leaves the others as they were.
        fraction, start = generator.random(2)
        factors = generator.standard_normal((len(series), 1))
        if self.crop_range is not None:
            smallest, largest = self.crop_range
            length = max(1, round(series.shape[1] * (smallest + (largest - smallest) * fraction)))
            # With + 1 the last window that fits is drawn as often as the others.
            first = int(start * (series.shape[1] - length + 1))
            series = series[:, first : first + length]
        values = preprocessing(series)
        if self.scaling:
            values = (values * (1 + self.scaling * factors)).astype(np.float32)
        if self.jitter:
            values = (values + self.jitter * generator.standard_normal(values.shape)).astype(np.float32)
        return values


class SeriesDataset(LabelledDataset[PlacedSeries]):
    """Series with their classes.

    Args:
        file: The series.
        labels: Id of the class of each.
        preprocessing: Converts a series to an input.
        augmentation: Changes in training; None for evaluation, whose samples carry their names.
    """

    def __init__(
        self,
        file: SeriesFile,
        labels: Sequence[int],
        preprocessing: SeriesPreprocessing,
        augmentation: SeriesAugmentation | None = None,
    ) -> None:
        super().__init__(labels)
        self.file = file
        self.preprocessing = preprocessing
        self.augmentation = augmentation

    def sample_identity(self, index: int) -> str:
        """Return row and class of a series."""
        return f"{self.file.rows[index]}\t{self.labels[index]}"

    def sample_names(self, index: int) -> Sequence[str]:
        """Return file and row of a series."""
        return [self.file.place(index)]

    def raw_sample(self, index: int) -> RawSample:
        """Return a series as its file holds it, (V, T) with NaN for a missing value, and its class."""
        return RawSample(self.file.series[index], self.labels[index])

    def is_in_memory(self, indices: Iterable[int]) -> bool:
        """Return true: a file is read as a whole."""
        return True

    def unfit_sizes(self, sizes: Mapping[int, Size]) -> Iterator[EspalierError]:
        """Yield nothing: series of any lengths share a batch."""
        yield from ()

    def sample(self, index: int, generator: np.random.Generator) -> PlacedSeries:
        """Return sample `index` with random numbers from `generator`."""
        series, label = self.file.series[index], self.labels[index]
        if self.augmentation is None:
            return PlacedSeries(self.preprocessing(series), label, NamedSample(self.file.place(index), label, index))
        return PlacedSeries(self.augmentation(series, self.preprocessing, generator), label)


def collate_series(samples: Sequence[PlacedSeries]) -> tuple[Any, ...]:
    """Return series (B, V, T) float32, NaN after the end of shorter ones, classes (B,) int64; names in evaluation."""
    # The networks find the end of a series by NaN, which no missing value is: those are interpolated.
    longest = max(sample.values.shape[1] for sample in samples)
    batch = np.full((len(samples), len(samples[0].values), longest), np.nan, np.float32)
    for row, sample in zip(batch, samples, strict=True):
        row[:, : sample.values.shape[1]] = sample.values
    target = torch.tensor([sample.label for sample in samples], dtype=torch.int64)
    origins = [sample.origin for sample in samples if sample.origin is not None]
    return (torch.from_numpy(batch), target, origins) if origins else (torch.from_numpy(batch), target)


class TimeSeriesDataLoader(BaseDataLoader):
    """Batches of time series and their classes.

    Training batches are (series (B, V, T) float32, classes (B,) int64). If lengths differ, the shorter series end in
    NaN, which the networks of this project leave out. With `is_training` false a batch has a third part: a list of
    `base.samples.NamedSample`. Class names and statistics come from the training data only, without the samples
    that `validation_split` or `folds` hold out. With `samples`, series are taken from the classes in turn.

    Args:
        path: A `.ts` file, a `.npz` with x (N, V, T) and y (N,), or a folder of the archives.
        split: File of a folder: "train", "val" or "test", for the one that ends in _TRAIN, _VAL or _TEST.
        labels: Names of the classes.
        series: Conversion to inputs.
        augmentation: Random changes in training.
        loading: Selection, order and loading of the samples.

    Raises:
        ConfigError: An option is out of its range.
        DataError: The file does not hold series with classes.
    """

    task: Task = "classification"
    dims: int | None = 1

    def __init__(
        self,
        path: SeriesPath,
        *,
        split: SeriesSplit = None,
        labels: ClassOptions = ClassOptions(),
        series: SeriesOptions = SeriesOptions(),
        augmentation: SeriesAugmentation = SeriesAugmentation(),
        loading: LoaderOptions = LoaderOptions(),
    ) -> None:
        split = split or loading.default_split
        limit = series.max_decoded_mb
        file = read_once(
            find_series_file(path, split),
            lambda path: list_series(path, max_decoded_mb=limit),
            SeriesFile.num_bytes,
            how=limit,
        ).labelled()
        file = file.select(first_of_each_class(file.labels or (), loading.samples))
        names = checked_classes(labels.classes or (), file.classes)
        known = list_label_ids(file.labels or (), names, file.place)
        file, ids = file.select([index for index, _ in known.usable()]), [number for _, number in known.entries]
        divided = divide_samples(loading, len(ids))
        self.split_seed = loading.split_seed
        if split == "train":  # other data gets the statistics of the training by its config
            seed = loading.seed if loading.split_seed is None else loading.split_seed
            training = split_indices(len(ids), loading.validation_split, seed)[0] if divided is None else divided[0]
            learned = learned_statistics([file.series[index] for index in training], series)
            missing: dict[str, Any] = {name: value for name, value in learned.items() if not getattr(series, name)}
            series = replace(series, **missing)
        preprocessing = self.make_preprocessing(series)
        plain = SeriesDataset(file, ids, preprocessing)
        super().__init__(
            SeriesDataset(file, ids, preprocessing, augmentation) if loading.is_training else plain,
            collate_fn=collate_series,
            validation_dataset=plain,
            indices=None if divided is None else divided[0].tolist(),
            **loading.base_arguments(),
        )
        if divided is not None:
            self._held_out = divided[1]
        self.num_classes, self.class_names = len(names), names
        self.in_channels = len(file.series[0])
        self.ignore_index = NO_CLASS
        self.preprocessing = preprocessing
        self.listing_faults = (*file.faults, *known.faults)
        statistics = {name: getattr(series, name) for name in STATISTICS}
        self.learned = {"classes": names, **{name: value for name, value in statistics.items() if value is not None}}

    @staticmethod
    def make_preprocessing(
        series: SeriesOptions = SeriesOptions(), in_channels: int | None = None
    ) -> SeriesPreprocessing:
        """Return the conversion of a series to an input, which needs no data."""
        return SeriesPreprocessing(series, in_channels=in_channels)
