"""Loading: the first pass against a pool of OpenCV, cached samples against their augmentation, workers against none.

`n_workers` "auto" is compared with the best of all numbers in an epoch of a small network, which needs the processors
itself, on all of them and on one. Samples per second by the clock: sending batches and waiting for them is what loader
workers cost.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import torch
from torch import nn

from base.base_data_loader import BaseDataLoader
from base.loading.worker_count import WorkerCount
from base.samples import SampleKey
from benchmarks.speed.comparison import Comparison, alternate
from benchmarks.speed.photos import write_pairs
from data_loader.common.options import AugmentationOptions, ImageOptions, LabelOptions, MaskLoaderOptions, PairOptions
from data_loader.segmentation.loader import SegmentationDataLoader
from utils.environment import DECODING_THREADS, available_processors

SIZE = (192, 128)  # of the input, as people/unet.json
LARGE, SMALL = (828, 552), (320, 213)  # photos as they come, and as data/human_ccp has them
_COUNT, _BATCH = 240, 16
_CHANGES = AugmentationOptions(
    crop_range=[0.8, 1.25], flip_hor=0.5, angle=5, brightness=0.08, contrast=0.2, saturation=0.25
)


def make_loader(
    pairs: Path,
    n_workers: WorkerCount = 0,
    *,
    size: tuple[int, int] = SIZE,
    reduced: bool = False,
    cache_mb: int | None = None,
    trains: bool = True,
) -> BaseDataLoader:
    """Return a loader as people/unet.json has it."""
    return SegmentationDataLoader(
        PairOptions(pairs_file=str(pairs)),
        labels=LabelOptions(classes=["background", "person"]),
        images=ImageOptions(resize=size, reduced_decoding=reduced),
        augmentation=_CHANGES if trains else AugmentationOptions(),
        loading=MaskLoaderOptions(batch_size=_BATCH, n_workers=n_workers, cache_mb=cache_mb),
    )


def measure(rounds: int) -> list[Comparison]:
    """Return the rows of the first pass, of cached samples and of the number of workers."""
    with TemporaryDirectory() as name:
        large, small = Path(name) / "large", Path(name) / "small"
        large.mkdir()
        small.mkdir()
        large_pairs, small_pairs = write_pairs(large, _COUNT, LARGE), write_pairs(small, _COUNT, SMALL)
        rows = [_first_pass(large_pairs, rounds, reduced=reduced) for reduced in (True, False)]
        rows.append(_augmentation(small_pairs, rounds))
        for processors in sorted({available_processors(), 1}, reverse=True):
            with _limited_to(processors):
                rows += _workers(small_pairs, rounds, processors, cache_mb=None)
                rows += _workers(large_pairs, rounds, processors, cache_mb=0)
        return rows


def _rate(run: Callable[[], object]) -> float:
    """Return the samples per second of a call that goes through all of them once."""
    start = time.perf_counter()
    run()
    return _COUNT / (time.perf_counter() - start)


def _first_pass(pairs: Path, rounds: int, *, reduced: bool) -> Comparison:
    """Compare the decoding of all samples before the first step with a pool of threads that decodes and shrinks."""
    flag = cv2.IMREAD_REDUCED_COLOR_4 if reduced else cv2.IMREAD_COLOR
    folder, (height, width) = pairs.parent, SIZE

    def decode(number: int) -> None:
        image = cv2.imread(str(folder / f"{number}.jpg"), flag)
        mask = cv2.imread(str(folder / f"{number}.png"), cv2.IMREAD_UNCHANGED)
        assert image is not None
        assert mask is not None
        cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)

    def pool() -> None:
        with ThreadPoolExecutor(min(DECODING_THREADS, available_processors())) as threads:
            list(threads.map(decode, range(_COUNT)))

    cases = {
        "ours": lambda: _rate(lambda: make_loader(pairs, reduced=reduced, trains=False).prepare()),
        "pool": lambda: _rate(pool),
    }
    values = alternate(cases, rounds)
    how = "at a quarter" if reduced else "whole"
    name = f"first pass, photos of {LARGE[0]}x{LARGE[1]} decoded {how}"
    other = "cv2 pool with the same threads and flag"
    bar = 0.85 if reduced else None
    return Comparison(name, "samples/s", values["ours"], values["pool"], other, True, bar, higher_is_better=True)


def _augmentation(pairs: Path, rounds: int) -> Comparison:
    """Compare cached samples in batches, loaded in this process, with their augmentation alone."""
    loader = make_loader(pairs)
    loader.prepare()

    def augment() -> None:
        for index in range(_COUNT):
            loader.dataset[SampleKey(0, index)]

    values = alternate({"ours": lambda: _rate(partial(_exhaust, loader)), "alone": lambda: _rate(augment)}, rounds)
    name, other = "cached, no worker", "augmentation alone"
    return Comparison(name, "samples/s", values["ours"], values["alone"], other, True, 0.9, higher_is_better=True)


def _workers(pairs: Path, rounds: int, processors: int, *, cache_mb: int | None) -> list[Comparison]:
    """Compare each number of workers with none, and "auto" with the best of them in an epoch of training."""
    numbers = [str(number) for number in range(processors + 1)]
    loaders = {name: make_loader(pairs, int(name), cache_mb=cache_mb) for name in numbers}
    loaders["auto"] = make_loader(pairs, "auto", cache_mb=cache_mb)
    step = _training_step()
    cases = {name: partial(_rate, partial(_exhaust, each)) for name, each in loaders.items() if name != "auto"}
    cases |= {f"train {name}": partial(_rate, partial(_exhaust, each, step)) for name, each in loaders.items()}
    try:
        values = alternate(cases, rounds)
        chosen = loaders["auto"].num_workers
    finally:
        for loader in loaders.values():
            loader.close()
    where = f"{'cached' if cache_mb is None else 'from files'}, {processors} processor{'s' * (processors > 1)}"
    bar = 0.95 if cache_mb is None else None
    rows = [
        Comparison(f"{where}, {name} workers", "samples/s", values[name], values["0"], "none", False, bar, True)
        for name in numbers[1:]
    ]
    best = max(numbers, key=lambda name: sorted(values[f"train {name}"])[rounds // 2])
    name, other = f"{where}, epoch of training, auto: {chosen} workers", f"the best number: {best}"
    auto, fastest = values["train auto"], values[f"train {best}"]
    return [*rows, Comparison(name, "samples/s", auto, fastest, other, False, 0.95, True)]


def _training_step() -> Callable[[Any], None]:
    """Return a step of a small network on a batch: it uses the processors that workers would take."""
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 2, 1)
    )
    network = network.to(memory_format=torch.channels_last)

    def step(batch: Any) -> None:
        network.zero_grad()
        network(batch[0]).square().mean().backward()

    return step


def _exhaust(loader: BaseDataLoader, step: Callable[[Any], None] | None = None) -> None:
    for batch in loader:
        if step is not None:
            step(batch)


@contextmanager
def _limited_to(processors: int) -> Iterator[None]:
    """Let this process, its threads and its loader workers use so many processors."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:processors])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
