"""Conversion of a series to a network's input: the same in training, testing and inference. V variables, T steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_loader.common.options import DecodedMegabytes, Options
from data_loader.time_series.files import SUFFIXES, SeriesFile, read_series
from utils.errors import ConfigError, DataError, NotLearned

Normalize = Literal["variable", "series", "none"]
PERCENTILE = 98
MOST_STEPS = 10_000_000
STATISTICS = ("mean", "std", "scale")


@dataclass(frozen=True)
class SeriesOptions(Options):
    """Conversion of a series to a network's input.

    Statistics are those of the training data after rescaling, one number per variable.
    """

    normalize: Annotated[
        Normalize,
        Field(description='By mean and deviation of each `"variable"` in training, of each `"series"`, `"none"`.'),
    ] = "variable"
    rescale: Annotated[bool, Field(description="First divide by the 98th percentile of absolute values.")] = False
    length: Annotated[
        int | None, Field(ge=1, le=MOST_STEPS, description="Interpolate to this number of steps; `null`: do not.")
    ] = None
    mean: Annotated[Sequence[float] | None, Field(description="Of each variable; `null`: of the training data.")] = None
    std: Annotated[Sequence[float] | None, Field(description="Of each variable; `null`: of the training data.")] = None
    scale: Annotated[Sequence[float] | None, Field(description="Percentiles; `null`: of the training data.")] = None
    max_decoded_mb: DecodedMegabytes = None


class SeriesPreprocessing:
    """Interpolation of missing values, length, scale and normalisation.

    Args:
        options: Steps to apply; `mean`, `std` and `scale` must be there if they are needed.
        in_channels: V, if known.

    Raises:
        ConfigError: A statistic is missing, or they are not of one number of variables.
    """

    recipe = (
        "A series (variables, steps); interpolate missing values linearly in time; resample linearly to length steps, "
        "if there is a length; divide each variable by scale, if there is a scale; (value - mean) / std, those of the "
        "series itself if normalize is series, not at all if it is none; 0 for a variable without any value; float32. "
        "In a batch NaN for the steps after the end of a shorter series."
    )
    """What a call does, in words, with the names of `describe`: exported networks hold it for other programs.

    A subclass that changes what a call does sets its own.
    """

    def __init__(self, options: SeriesOptions = SeriesOptions(), *, in_channels: int | None = None) -> None:
        self.options = options
        self.size = None if options.length is None else (options.length,)
        needed = [
            *(("mean", "std") if options.normalize == "variable" else ()),
            *(["scale"] if options.rescale else ()),
        ]
        self.statistics: dict[str, NDArray[np.float64]] = {}  # name: (V, 1)
        for name in needed:
            values = getattr(options, name)
            if values is None:
                raise NotLearned(
                    f"{name} is missing: it is computed from the training data and is in the config of a checkpoint. "
                    "Use that config, or train first."
                )
            self.statistics[name] = np.asarray(values, np.float64)[:, None]
        widths = {len(each) for each in self.statistics.values()} | ({in_channels} if in_channels else set())
        if len(widths) > 1:
            raise ConfigError(
                f"mean, std and scale are of {sorted(widths)} variables, and all must be of as many as the series "
                "have. Leave them out to have them computed."
            )
        self.in_channels = next(iter(widths), None)

    def __call__(self, series: NDArray[Any]) -> NDArray[np.float32]:
        """Convert (V, T) numbers, NaN for missing ones, to an input (V, T') float32 without NaN.

        Raises:
            DataError: The series has another number of variables.
        """
        if self.in_channels not in (None, len(series)):
            raise DataError(
                f"The series has {len(series)} variables, but the network was trained on {self.in_channels}. Use "
                "series of the same kind as in training."
            )
        values, steps = np.array(series, np.float64), np.arange(series.shape[1])
        for row, missing in zip(values, np.isnan(values), strict=True):
            if missing.any() and not missing.all():  # a variable without any value stays NaN until the end
                row[missing] = np.interp(steps[missing], steps[~missing], row[~missing])
        length = self.options.length
        if length not in (None, len(steps)):
            places = np.linspace(0, len(steps) - 1, length)
            values = np.stack([np.interp(places, steps, row) for row in values])
        if self.options.rescale:
            values = values / self.statistics["scale"]
        if self.options.normalize == "variable":
            values = (values - self.statistics["mean"]) / self.statistics["std"]
        elif self.options.normalize == "series":
            mean, deviation = _mean_and_deviation(values)
            values = (values - mean) / deviation
        return np.nan_to_num(values, nan=0.0).astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """Return every option and `in_channels` as plain data, the statistics only if they are used."""
        plain = {name: getattr(self.options, name) for name in ("normalize", "rescale", "length")}
        statistics = {name: values[:, 0].tolist() for name, values in self.statistics.items()}
        return {**plain, "in_channels": self.in_channels, **statistics}


def series_of_source(source: str, preprocess: Any, *, max_decoded_mb: int | None = None) -> SeriesFile | None:
    """Return the series of a file that a network is to be used on; None if its input are images.

    Args:
        source: The file. It decides if the preprocessing is one of a user's own that reads no files.
        preprocess: That of the network.
        max_decoded_mb: Limit on the series in memory; None: that of the preprocessing.

    Raises:
        DataError: The network takes series, and the file holds none; or it is damaged or too large.
    """
    if isinstance(preprocess, SeriesPreprocessing):
        max_decoded_mb = max_decoded_mb or preprocess.options.max_decoded_mb
    elif hasattr(preprocess, "read") or Path(source).suffix.lower() not in SUFFIXES:
        return None
    return read_series(source, max_decoded_mb=max_decoded_mb)


def learned_statistics(series: Sequence[NDArray[Any]], options: SeriesOptions) -> dict[str, list[float]]:
    """Return `scale`, `mean` and `std` of each variable over the series (V, T) to train on, if they are needed.

    If the options have a `scale`, the other two are of series divided by it, and it is not among the result.

    Raises:
        ConfigError: Their `scale` is of another number of variables.
    """
    values = np.concatenate([np.asarray(each, np.float64) for each in series], axis=1)
    learned: dict[str, list[float]] = {}
    if options.rescale and options.scale:
        if len(options.scale) != len(values):
            raise ConfigError(
                f"scale lists {len(options.scale)} numbers, but the series have {len(values)} variables: each needs "
                "one. Correct scale, or leave it out to have it computed."
            )
        values = values / np.asarray(options.scale, np.float64)[:, None]
    elif options.rescale:
        # A percentile, because a single outlier would decide the maximum.
        magnitudes = [np.abs(row[~np.isnan(row)]) for row in values]
        scale = np.array([np.percentile(each, PERCENTILE) if each.size else 1.0 for each in magnitudes])
        scale[scale == 0] = 1.0
        learned["scale"] = scale.tolist()
        values = values / scale[:, None]
    if options.normalize == "variable":
        mean, deviation = _mean_and_deviation(values)
        learned |= {"mean": np.nan_to_num(mean)[:, 0].tolist(), "std": deviation[:, 0].tolist()}
    return learned


def _mean_and_deviation(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of the values of each row that are not NaN, (V, 1) each.

    The deviation of a constant row is 1, so that normalisation turns it to 0. A row without values has mean 0 and
    deviation 1.
    """
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    mean = np.where(known, values, 0).sum(axis=1, keepdims=True) / count
    deviation = np.sqrt(np.where(known, (values - mean) ** 2, 0).sum(axis=1, keepdims=True) / count)
    return mean, np.where(deviation < 1e-12, 1.0, deviation)
