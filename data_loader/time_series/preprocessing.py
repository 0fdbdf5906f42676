"""The one way from a series to a network's input, in training, testing and inference. V variables, T steps."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from utils.errors import ConfigError, DataError

Normalize = Literal["variable", "series", "none"]
PERCENTILE = 98.0
STATISTICS = ("mean", "std", "scale")


class SeriesPreprocessing:
    """Filling what is missing, length, scale and normalisation.

    Args:
        normalize: "variable": subtract each variable's mean over the training data and divide by its deviation;
            "series": those of each series itself; or "none".
        rescale: Divide each variable by the 98th percentile of its absolute values in the training data.
        length: Bring every series to so many steps by linear interpolation; None keeps its own.
        mean: Mean of each variable after rescaling, (V,).
        std: Deviation of each variable after rescaling, (V,).
        scale: The 98th percentiles, (V,).
        in_channels: V, where known.

    Raises:
        ConfigError: A statistic is needed and not given, or they are not of one number of variables.
    """

    def __init__(
        self,
        *,
        normalize: Normalize = "variable",
        rescale: bool = False,
        length: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        in_channels: int | None = None,
    ) -> None:
        if length is not None and length < 1:
            raise ConfigError(f"Wrong length {length}: it must be 1 step or more, or null for each series' own.")
        self.normalize, self.rescale, self.length = normalize, rescale, length
        self.size = None if length is None else (length,)
        given = {"mean": mean, "std": std, "scale": scale}
        needed = {"mean": normalize == "variable", "std": normalize == "variable", "scale": rescale}
        for name, is_needed in needed.items():
            if is_needed and given[name] is None:
                raise ConfigError(
                    f"{name} is missing: it is learned from the training data and stands in the config of a "
                    "checkpoint. Use that config, or train first."
                )
        self.statistics = {
            name: np.asarray(given[name], np.float64)[:, None] for name, is_needed in needed.items() if is_needed
        }
        widths = {len(each) for each in self.statistics.values()} | ({in_channels} if in_channels else set())
        if len(widths) > 1:
            raise ConfigError(
                f"mean, std and scale are of {sorted(widths)} variables, and all must be of as many as the "
                "series have. Leave them out: they are learned."
            )
        self.in_channels = next(iter(widths), None)

    def __call__(self, series: NDArray[Any]) -> NDArray[np.float32]:
        """(V, T) of numbers, NaN where one is missing -> (V, T') float32 without NaN.

        Raises:
            DataError: It has another number of variables.
        """
        if self.in_channels not in (None, len(series)):
            raise DataError(
                f"The series has {len(series)} variables, but the network was trained on {self.in_channels}. Use "
                "series of the same kind as in training."
            )
        values = filled(np.asarray(series, np.float64))
        if self.length is not None:
            values = resampled(values, self.length)
        if self.rescale:
            values = values / self.statistics["scale"]
        if self.normalize == "variable":
            values = (values - self.statistics["mean"]) / self.statistics["std"]
        elif self.normalize == "series":
            values = (values - _mean(values)) / _deviation(values)
        return np.nan_to_num(values, nan=0.0).astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """Every argument with its value, as plain data; `SeriesPreprocessing(**describe())` is the same again."""
        statistics = {name: values[:, 0].tolist() for name, values in self.statistics.items()}
        return {
            "normalize": self.normalize,
            "rescale": self.rescale,
            "length": self.length,
            "in_channels": self.in_channels,
            **statistics,
        }


def learned_statistics(
    series: Sequence[NDArray[Any]], *, normalize: Normalize, rescale: bool
) -> dict[str, list[float]]:
    """`scale`, `mean` and `std` of each variable over the series (V, T) to train on, as far as they are needed."""
    values = np.concatenate([np.asarray(each, np.float64) for each in series], axis=1)
    learned: dict[str, list[float]] = {}
    if rescale:
        magnitudes = [np.abs(row[~np.isnan(row)]) for row in values]
        scale = np.array([np.percentile(each, PERCENTILE) if each.size else 1.0 for each in magnitudes])
        scale[scale == 0] = 1.0
        learned["scale"] = scale.tolist()
        values = values / scale[:, None]
    if normalize == "variable":
        learned["mean"] = np.nan_to_num(_mean(values))[:, 0].tolist()
        learned["std"] = _deviation(values)[:, 0].tolist()
    return learned


def filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Missing values from their neighbours in time, linearly; a variable without any value stays NaN."""
    missing = np.isnan(values)
    if not missing.any():
        return values
    complete, steps = values.copy(), np.arange(values.shape[1])
    for row, gaps in zip(complete, missing, strict=True):
        if gaps.any() and not gaps.all():
            row[gaps] = np.interp(steps[gaps], steps[~gaps], row[~gaps])
    return complete


def resampled(values: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """(V, T) at `length` steps, linearly; first and last stay where they are."""
    if values.shape[1] == length:
        return values
    places = np.linspace(0, values.shape[1] - 1, length)
    return np.stack([np.interp(places, np.arange(values.shape[1]), row) for row in values])


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    known = ~np.isnan(values)
    mean: NDArray[np.float64] = np.where(known, values, 0).sum(axis=1, keepdims=True) / np.maximum(
        known.sum(axis=1, keepdims=True), 1
    )
    return mean


def _deviation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Deviation of each row, 1 where it is constant."""
    deviation = np.sqrt(_mean((values - _mean(values)) ** 2))
    return np.where(deviation < 1e-12, 1.0, deviation)
