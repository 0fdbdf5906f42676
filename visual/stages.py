"""How long each stage of inference takes: medians of many, so that one hiccup does not count."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")
STAGES = ("read", "preprocess", "model", "restore", "draw", "write")
WARM_UP = 3  # first entries of a stage that are left out: caches, lazy loading, the choice of algorithms


class Stages:
    """Seconds per picture of each stage.

    Args:
        synchronize: Waits for the device, so that a stage ends when its work is done; None does not wait.
    """

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        self.seconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
        self._synchronize = synchronize

    @contextmanager
    def measure(self, stage: str, pictures: int = 1) -> Iterator[None]:
        """Time a block that works on so many pictures."""
        start = perf_counter()
        yield
        if self._synchronize is not None:
            self._synchronize()
        self.seconds[stage].append((perf_counter() - start) / max(1, pictures))

    def each(self, stage: str, items: Iterable[T]) -> Generator[T]:
        """Time how long every item takes to come."""
        iterator = iter(items)
        while True:
            start = perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self.seconds[stage].append(perf_counter() - start)
            yield item

    def table(self) -> str:
        """Median milliseconds per picture of each stage that took place, and their sum."""
        medians = {stage: 1e3 * median(_warm(values)) for stage, values in self.seconds.items() if values}
        lines = [f"{'stage':<12}{'ms/picture':>12}{'measured':>10}"]
        lines += [f"{stage:<12}{value:>12.2f}{len(_warm(self.seconds[stage])):>10}" for stage, value in medians.items()]
        return "\n".join([*lines, f"{'sum':<12}{sum(medians.values()):>12.2f}"])


def _warm(values: list[float]) -> list[float]:
    return values[WARM_UP:] or values
