"""The loader of time series that a configuration names. B batch, V variables, T steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from base.base_data_loader import BaseDataLoader, Task
from base.data.index_sampler import split_indices
from base.data.samples import NamedSample
from data_loader.classification.sources import NO_CLASS, checked_classes, class_ids, first_of_each_class
from data_loader.common.image_cache import read_once
from data_loader.time_series.files import SeriesFile, Values, find_series_file, read_series
from data_loader.time_series.preprocessing import Normalize, SeriesPreprocessing, learned_statistics
from utils.errors import ConfigError, DataError
from utils.seeds import derive_seed


class PlacedSeries(NamedTuple):
    """A series as the network gets it.

    Attributes:
        values: (V, T) float32.
        label: Id of its class.
        origin: Its name and position, in evaluation.
    """

    values: NDArray[np.float32]
    label: int
    origin: NamedSample | None = None


@dataclass(frozen=True)
class SeriesAugmentation:
    """What happens to a series in training; the default is nothing.

    Every sample takes the same draws in the same order, but for the noise, which comes last.

    Attributes:
        crop_range: Smallest and largest share of a series that a random window of it keeps.
        scaling: Deviation of the factor, around 1, that each variable is multiplied by.
        jitter: Deviation of the noise added to each value.
    """

    crop_range: Sequence[float] | None = None
    scaling: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        for name in ("scaling", "jitter"):
            if getattr(self, name) < 0:
                raise ConfigError(f"Wrong {name} {getattr(self, name)}: it must be 0 (off) or more.")
        window = self.crop_range
        if window is not None and not (len(window) == 2 and 0.0 < window[0] <= window[1] <= 1.0):
            raise ConfigError(
                f"Wrong crop_range {list(window)}: it must be [smallest, largest] share of a series, above 0 and at "
                "most 1, as in [0.9, 1.0]."
            )

    def __call__(
        self, series: Values, preprocessing: SeriesPreprocessing, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Cut a window out of (V, T), make an input of it, and change its values."""
        share, start = generator.random(2)
        factors = generator.standard_normal((len(series), 1))
        if self.crop_range is not None:
            smallest, largest = self.crop_range
            length = max(1, round(series.shape[1] * (smallest + (largest - smallest) * share)))
            first = int(start * (series.shape[1] - length + 1))
            series = series[:, first : first + length]
        values = preprocessing(series)
        if self.scaling:
            values = (values * (1 + self.scaling * factors)).astype(np.float32)
        if self.jitter:
            values = (values + self.jitter * generator.standard_normal(values.shape)).astype(np.float32)
        return values


class SeriesDataset(Dataset[PlacedSeries]):
    """Series with their classes.

    Args:
        file: The series.
        labels: Id of the class of each.
        preprocessing: Makes a network's input of a series.
        augmentation: What happens in training; None for evaluation, whose samples carry their names.
    """

    def __init__(
        self,
        file: SeriesFile,
        labels: Sequence[int],
        preprocessing: SeriesPreprocessing,
        augmentation: SeriesAugmentation | None = None,
    ) -> None:
        self.file = file
        self.labels = list(labels)
        self.preprocessing = preprocessing
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> PlacedSeries:
        """Sample `index` with draws that follow from the index alone; loaders call `sample`."""
        return self.sample(index, np.random.default_rng(derive_seed("sample", index)))

    def sample(self, index: int, generator: np.random.Generator) -> PlacedSeries:
        """Sample `index`, its draws from `generator`."""
        series, label = self.file.series[index], self.labels[index]
        if self.augmentation is None:
            origin = NamedSample(self.file.place(index), label, index)
            return PlacedSeries(self.preprocessing(series), label, origin)
        return PlacedSeries(self.augmentation(series, self.preprocessing, generator), label)

    def without_target(self, sample: PlacedSeries) -> PlacedSeries:
        """The sample with a class that counts nowhere."""
        return sample._replace(label=NO_CLASS)


def collate_series(samples: Sequence[PlacedSeries]) -> tuple[Any, ...]:
    """Series (B, V, T) float32, NaN behind the end of shorter ones, classes (B,) int64, and names in evaluation."""
    longest = max(sample.values.shape[1] for sample in samples)
    batch = np.full((len(samples), len(samples[0].values), longest), np.nan, np.float32)
    for row, sample in zip(batch, samples, strict=True):
        row[:, : sample.values.shape[1]] = sample.values
    target = torch.tensor([sample.label for sample in samples], dtype=torch.int64)
    origins = [sample.origin for sample in samples if sample.origin is not None]
    parts: tuple[Tensor, Tensor] = (torch.from_numpy(batch), target)
    return (*parts, origins) if origins else parts


class TimeSeriesDataLoader(BaseDataLoader):
    """Batches of time series and their classes.

    Training batches are (series (B, V, T) float32, classes (B,) int64). Of unequal lengths the shorter ones end in NaN,
    which the networks here leave out. With `is_training` false a batch has a third part: a list of
    `base.sample.NamedSample`. What is learned (class names, statistics) comes from the training part only.

    Args:
        path: A `.ts` file, a `.npz` with x (N, V, T) and y (N,), or a folder of the archives.
        split: Of a folder: "train", "val" or "test", the file that ends in _TRAIN, _VAL or _TEST.
        samples: Only so many series, from the classes in turn.
        classes: Names of the classes, in the order of their ids; those of the training data where not given.
        normalize: "variable", by each variable's mean and deviation; "series", by each series' own; or "none".
        rescale: Divide each variable by the 98th percentile of its absolute values, before that.
        length: Bring every series to so many steps by linear interpolation; null keeps its own.
        mean: Mean of each variable; learned from the training data where not given.
        std: Deviation of each variable; learned from the training data where not given.
        scale: The 98th percentiles; learned from the training data where not given.
        is_training: Augment and shuffle; otherwise evaluate.
        crop_range: Share of a series that a random window keeps, [smallest, largest].
        scaling: Deviation of a random factor of each variable.
        jitter: Deviation of the noise added to each value, after normalisation.
        batch_size: Samples per batch, over all processes.
        shuffle: New order in each epoch; where not given, in training.
        drop_last: Leave out an incomplete last batch.
        validation_split: Share or number of samples held out for `split_validation`.
        n_workers: Worker processes.
        pin_memory: Page-locked batches, where there is CUDA.
        seed: Seed of the run.

    Raises:
        ConfigError: An argument is out of its range.
        DataError: The file does not hold what it should.
    """

    task: Task = "classification"

    def __init__(
        self,
        path: str,
        *,
        split: str | None = None,
        samples: int | None = None,
        classes: Sequence[str] | None = None,
        normalize: Normalize = "variable",
        rescale: bool = False,
        length: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        is_training: bool = True,
        crop_range: Sequence[float] | None = None,
        scaling: float = 0.0,
        jitter: float = 0.0,
        batch_size: int = 16,
        shuffle: bool | None = None,
        drop_last: bool = False,
        validation_split: int | float = 0.0,
        n_workers: int = 0,
        pin_memory: bool = False,
        seed: int = 0,
    ) -> None:
        role = split or ("train" if is_training else "val")
        file = _chosen(read_once(find_series_file(path, role), read_series, SeriesFile.num_bytes), samples)
        names = checked_classes(classes or (), file.classes)
        training, _ = split_indices(len(file.series), validation_split, seed)
        statistics: dict[str, Any] = {"mean": mean, "std": std, "scale": scale}
        if role == "train":
            chosen = [file.series[index] for index in training]
            for name, value in learned_statistics(chosen, normalize=normalize, rescale=rescale).items():
                statistics[name] = statistics[name] or value
        preprocessing = self.make_preprocessing(normalize=normalize, rescale=rescale, length=length, **statistics)
        ids = class_ids(file.labels or (), names, file.place)
        plain = SeriesDataset(file, ids, preprocessing)
        augmentation = SeriesAugmentation(crop_range=crop_range, scaling=scaling, jitter=jitter)
        super().__init__(
            SeriesDataset(file, ids, preprocessing, augmentation) if is_training else plain,
            batch_size,
            shuffle=is_training if shuffle is None else shuffle,
            validation_split=validation_split,
            n_workers=n_workers,
            collate_fn=collate_series,
            seed=seed,
            pin_memory=pin_memory,
            drop_last=drop_last,
            validation_dataset=plain,
            is_training=is_training,
        )
        self.num_classes, self.class_names = len(names), names
        self.in_channels = len(file.series[0])
        self.ignore_index = NO_CLASS
        self.preprocessing = preprocessing
        self.learned = {"classes": names, **{name: value for name, value in statistics.items() if value is not None}}

    @staticmethod
    def make_preprocessing(
        *,
        normalize: Literal["variable", "series", "none"] = "variable",
        rescale: bool = False,
        length: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        in_channels: int | None = None,
    ) -> SeriesPreprocessing:
        """What makes an input of a series, from the arguments of the loader that bear on it and without any data."""
        return SeriesPreprocessing(
            normalize=normalize,
            rescale=rescale,
            length=length,
            mean=mean,
            std=std,
            scale=scale,
            in_channels=in_channels,
        )


def _chosen(file: SeriesFile, samples: int | None) -> SeriesFile:
    """The first series of each class.

    Raises:
        DataError: The file has no classes.
    """
    if file.labels is None:
        raise DataError(f"{file.path} has no classes: they are what is learned or judged. Name a file with classes.")
    chosen = first_of_each_class(file.labels, samples)
    series, labels = [file.series[index] for index in chosen], [file.labels[index] for index in chosen]
    return SeriesFile(file.path, series, labels, file.classes, [file.rows[index] for index in chosen])
