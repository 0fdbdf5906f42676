"""The loop of inference: read ahead, run the network on batches, draw, hand on."""

import logging
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from statistics import median
from time import perf_counter
from typing import NamedTuple, Never, TypeVar

from torch import Tensor
from tqdm import tqdm

from base.base_inference import Prepared, batches_of_one_size
from predictor.compositing import to_show
from predictor.io.sinks import Sink
from predictor.io.sources import Frame, Source
from predictor.segmenter import Segmenter
from utils.errors import DataError, TrainingError

T = TypeVar("T")
STAGES = ("read", "preprocess", "model", "restore", "draw", "write")
WARM_UP = 3  # first entries of a stage that are left out: caches, lazy loading, the choice of algorithms


class Stages:
    """Seconds per image of each stage.

    Args:
        synchronize: Waits for the device, so that a stage ends when its work is done; None does not wait.
    """

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        self.seconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
        self._synchronize = synchronize

    @contextmanager
    def measure(self, stage: str, images: int = 1) -> Iterator[None]:
        """Time a block that works on so many images."""
        start = perf_counter()
        yield
        if self._synchronize is not None:
            self._synchronize()
        self.seconds[stage].append((perf_counter() - start) / max(1, images))

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
        """Median milliseconds per image of each stage that took place, and their sum."""
        medians = {stage: 1e3 * median(_warm(values)) for stage, values in self.seconds.items() if values}
        lines = [f"{'stage':<12}{'ms/image':>12}{'measured':>10}"]
        lines += [f"{stage:<12}{value:>12.2f}{len(_warm(self.seconds[stage])):>10}" for stage, value in medians.items()]
        return "\n".join([*lines, f"{'sum':<12}{sum(medians.values()):>12.2f}"])


def _warm(values: list[float]) -> list[float]:
    return values[WARM_UP:] or values


T_AHEAD = TypeVar("T_AHEAD")
_PATIENCE_SECONDS = 0.1  # how soon a waiting reader notices that nobody wants more


def read_ahead(items: Iterable[T_AHEAD], depth: int, *, keep_newest: bool = False) -> Generator[T_AHEAD]:
    """Iterate in a thread, so that decoding goes on while the network computes.

    Closing the generator stops the thread and waits for it. What iterating raises is raised here, after the items
    before it.

    Args:
        items: Iterated in the thread.
        depth: How many items may wait.
        keep_newest: Rather drop the oldest waiting item than let the reader wait: for a live image.
    """
    waiting: queue.Queue[tuple[T_AHEAD] | BaseException | None] = queue.Queue(maxsize=max(1, depth))
    is_wanted = threading.Event()
    is_wanted.set()
    reader = threading.Thread(target=_fill, args=(items, waiting, is_wanted, keep_newest), name="reader", daemon=True)
    reader.start()
    try:
        while (entry := waiting.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        is_wanted.clear()
        reader.join()


def _fill(
    items: Iterable[T_AHEAD],
    waiting: "queue.Queue[tuple[T_AHEAD] | BaseException | None]",
    is_wanted: threading.Event,
    keep_newest: bool,
) -> None:
    last: BaseException | None = None
    iterator = iter(items)
    try:
        for item in iterator:
            if keep_newest and waiting.full():
                _drop_oldest(waiting)
            _put(waiting, (item,), is_wanted)
            if not is_wanted.is_set():
                break
    except BaseException as error:  # handed over to whoever reads, whatever it is
        last = error
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
        _put(waiting, last, is_wanted)


def _drop_oldest(waiting: "queue.Queue[tuple[T_AHEAD] | BaseException | None]") -> None:
    try:
        waiting.get_nowait()
    except queue.Empty:
        return


def _put(
    waiting: "queue.Queue[tuple[T_AHEAD] | BaseException | None]",
    entry: "tuple[T_AHEAD] | BaseException | None",
    is_wanted: threading.Event,
) -> None:
    while is_wanted.is_set():
        try:
            waiting.put(entry, timeout=_PATIENCE_SECONDS)
        except queue.Full:
            continue
        return


class Outcome(NamedTuple):
    """What a run of inference did.

    Attributes:
        images: How many were segmented.
        seconds: How long it took.
    """

    images: int
    seconds: float


def segment(
    segmenter: Segmenter,
    source: Source,
    sinks: Sequence[Sink],
    *,
    stages: Stages,
    batch_size: int = 1,
    limit: int | None = None,
    repeat_to: int = 0,
) -> Outcome:
    """Segment everything a source gives and hand each result to every sink, in order.

    Args:
        segmenter: The network and what to make of its predictions.
        source: An image that cannot be used is added to its failures and the others go on.
        sinks: The first that has had enough ends the loop.
        stages: Told how long everything takes.
        batch_size: Most images at once; a live source is served one at a time.
        limit: Stop after so many images.
        repeat_to: Read the source again until so many were segmented: to measure with few images.

    Raises:
        DataError: Not a single image could be used.
    """
    size = 1 if source.is_live else batch_size
    frames = stages.each("read", islice(_repeated(source, repeat_to), limit))
    total = min(filter(None, (max(source.expected, repeat_to) if source.expected else None, limit)), default=None)
    started, count = perf_counter(), 0
    unit = "image" if source.frame_rate is None else "frame"
    with (
        closing(read_ahead(frames, size + 2, keep_newest=source.is_live)) as ahead,
        tqdm(total=total, unit=unit, desc="segment", smoothing=0.1, dynamic_ncols=True, leave=False) as progress,
    ):
        while chunk := list(islice(ahead, size)):
            usable = _prepared(segmenter, chunk, source, stages)
            is_wanted = _serve(segmenter, usable, sinks, stages, progress)
            count += len(usable)
            if not is_wanted:
                break
    if count == 0:
        raise DataError(_nothing_worked(source))
    return Outcome(count, perf_counter() - started)


def _repeated(source: Source, count: int) -> Iterator[Frame]:
    """The source's frames, from the beginning again until there were `count`."""
    given = 0
    while True:
        before = given
        for frame in source:
            yield frame
            given += 1
        if given >= count or given == before:
            return


def _prepared(
    segmenter: Segmenter, chunk: Iterable[Frame], source: Source, stages: Stages
) -> list[tuple[Frame, Prepared]]:
    usable = []
    for frame in chunk:
        try:
            with stages.measure("preprocess"):
                prepared = segmenter.prepare(frame.image)
        except DataError as error:
            source.failures.append(f"{frame.name}: {error}")
        else:
            usable.append((frame, prepared))
    return usable


def _serve(
    segmenter: Segmenter,
    usable: Sequence[tuple[Frame, Prepared]],
    sinks: Sequence[Sink],
    stages: Stages,
    progress: "tqdm[Never]",
) -> bool:
    """Predict, draw and hand on one chunk; whether every sink wants more."""
    logits: dict[int, Tensor] = {}
    for positions in batches_of_one_size([prepared.inputs.shape for _, prepared in usable], len(usable)):
        with stages.measure("model", len(positions)), _memory_errors(len(positions)):
            batch = segmenter.logits([usable[position][1].inputs for position in positions])
        logits.update(zip(positions, batch, strict=True))
    for position, (frame, prepared) in enumerate(usable):
        with stages.measure("restore"):
            probabilities = segmenter.restore(logits.pop(position), prepared.geometry)
        with stages.measure("draw"):
            result = segmenter.render(frame.image, probabilities)
        with stages.measure("write"):
            shown = to_show(result, segmenter.num_classes) if any(sink.wants_rgb for sink in sinks) else result
            answers = [sink.write(frame, shown if sink.wants_rgb else result) for sink in sinks]
        progress.update()
        if not all(answers):
            return False
    return True


@contextmanager
def _memory_errors(images: int) -> Iterator[None]:
    """Say what to do when the network's memory runs out.

    Raises:
        TrainingError: In the place of torch's own errors.
    """
    try:
        yield
    except RuntimeError as error:  # the processor's allocator has no class of its own
        if "out of memory" not in str(error) and "allocate memory" not in str(error):
            raise
        raise TrainingError(
            f"Memory ran out with {images} images at once. Make --batch-size smaller, or use a network that was "
            "trained with a resize."
        ) from error


def _nothing_worked(source: Source) -> str:
    if source.failures:
        return f"None of the {len(source.failures)} images could be used. The first: {source.failures[0]}"
    return "There was no image to segment. Check --source and --limit."


logger = logging.getLogger(__name__)


def report(outcome: Outcome, source: Source, sinks: Sequence[Sink]) -> None:
    """Say how fast it went, where the results are, and what did not work.

    Raises:
        DataError: Some of the images could not be used, although all others were.
    """
    for remark in dict.fromkeys([*source.remarks, *(remark for sink in sinks for remark in sink.remarks)]):
        logger.warning("%s", remark)
    unit = "pictures" if source.frame_rate is None else "frames"
    rate = outcome.images / max(outcome.seconds, 1e-9)
    logger.info("%d %s in %.1f s, %.1f %s/s", outcome.images, unit, outcome.seconds, rate, unit)
    files = list(dict.fromkeys(path for sink in sinks for path in sink.written))
    if files:
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        logger.info("Written: %s%s", files[0], more)
    failures = list(dict.fromkeys(source.failures))
    if failures:
        for failure in failures:
            logger.error("%s", failure)
        raise DataError(
            f"{len(failures)} of {len(failures) + outcome.images} images could not be used; all others are done. "
            "Their names stand above. Mend or remove them and run again."
        )
