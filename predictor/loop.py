"""The loop of inference, a pipeline: read and prepare, run the network on batches, draw, hand results to the sinks."""

import logging
import queue
import re
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from base.base_inference import BaseInference, Prepared, batches_of_one_size
from predictor.io.frames import Frame, FrameSource
from predictor.io.sink import FormatTooSmall, Sink
from predictor.segmenter import Segmenter
from utils.environment import is_out_of_memory
from utils.errors import DataError, EspalierError, TrainingError
from utils.geometry import Geometry
from utils.writing.text import in_one_line

T = TypeVar("T")
STAGES = ("read", "preprocess", "model", "restore", "draw", "write")
FAILURES_SHOWN = 20  # of a run without results: mostly all of them are the same
WARM_UP = 3  # first entries of a stage that are left out: caches, lazy loading, the choice of algorithms
_OF_DEVICE = re.compile("cuda|cudnn|cublas|hip error", re.IGNORECASE)
logger = logging.getLogger(__name__)


@dataclass(eq=False)
class StageTimer:
    """Seconds per image of each stage.

    Args:
        synchronize: Waits for the device, so that a stage ends when its work is done; None does not wait.
    """

    synchronize: Callable[[], None] | None = None
    seconds: dict[str, list[float]] = field(init=False, default_factory=lambda: {stage: [] for stage in STAGES})

    @contextmanager
    def measure(self, stage: str, images: int = 1) -> Iterator[None]:
        """Time a block that works on `images` images."""
        start = perf_counter()
        yield
        if self.synchronize is not None:
            self.synchronize()
        self.seconds[stage].append((perf_counter() - start) / max(1, images))

    def table(self) -> str:
        """Return the median milliseconds per image of each stage that took place, and their sum, as text."""
        lines, total = [f"{'stage':<12}{'ms/image':>12}{'measured':>10}"], 0.0
        for stage, seconds in self.seconds.items():
            if seconds:
                warm = seconds[WARM_UP:] or seconds
                milliseconds = 1e3 * median(warm)
                total += milliseconds
                lines.append(f"{stage:<12}{milliseconds:>12.2f}{len(warm):>10}")
        return "\n".join([*lines, f"{'sum':<12}{total:>12.2f}"])


def read_ahead(items: Iterable[T], depth: int, *, keep_newest: bool = False) -> Generator[T]:
    """Iterate in a thread, so that decoding continues while the network computes.

    Closing the generator stops the thread and waits for it. An error of the iteration is raised here, after the items
    before it.

    Args:
        items: Iterated in the thread.
        depth: How many items may wait.
        keep_newest: Drop the oldest waiting item instead of letting the reader wait: for a live image.
    """
    waiting: queue.SimpleQueue[tuple[T] | BaseException | None] = queue.SimpleQueue()
    room = threading.Semaphore(max(1, depth))
    is_wanted = threading.Event()
    is_wanted.set()

    def read() -> None:
        last: BaseException | None = None
        iterator = iter(items)
        try:
            for item in iterator:
                while not room.acquire(blocking=not keep_newest):
                    with suppress(queue.Empty):  # the consumer may be faster
                        waiting.get_nowait()
                        room.release()
                if not is_wanted.is_set():
                    break
                waiting.put((item,))
        except BaseException as error:  # handed over to the consumer, whatever it is
            last = error
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
            waiting.put(last)

    reader = threading.Thread(target=read, name="reader", daemon=True)
    reader.start()
    try:
        while (entry := waiting.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            room.release()
            yield entry[0]
    finally:
        is_wanted.clear()
        room.release()  # the reader may wait for it
        reader.join()


def chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size`, the last one shorter; an error of the iteration comes after those before it.

    Args:
        items: Iterated as far as the next list needs.
        size: Length of a list.
    """
    iterator = iter(items)
    problem: Exception | None = None
    while problem is None:
        chunk: list[T] = []
        try:
            chunk.extend(islice(iterator, size))
        except Exception as error:  # whatever it is: the items before it are whole
            problem = error
        if chunk:
            yield chunk
        elif problem is None:
            return
    raise problem


class PredictionStats(NamedTuple):
    """Counts of a run of inference.

    Attributes:
        images: Number of images that were predicted.
        seconds: Duration of the run.
    """

    images: int
    seconds: float


def predict_all(
    segmenter: Segmenter,
    source: FrameSource,
    sinks: Sequence[Sink],
    *,
    timer: StageTimer,
    batch_size: int = 1,
    limit: int | None = None,
    repeat_to: int = 0,
) -> PredictionStats:
    """Predict every image of a source and hand each result to every sink, in order.

    Args:
        segmenter: The network and its renderer.
        source: An image that cannot be used is added to its failures; the others are still predicted.
        sinks: The first that wants no more results ends the loop. They are used in this thread only.
        timer: Measures every stage.
        batch_size: Largest number of images at once; a live source is predicted one image at a time.
        limit: Stop after this number of images.
        repeat_to: Read the source again until this number of images was predicted: to measure with few images.

    Raises:
        DataError: Not a single image could be used.
    """
    is_shown = any(sink.wants_rgb for sink in sinks)
    stages = _Stages(segmenter, source, timer, 1 if source.is_live else batch_size, is_shown=is_shown)
    # Of a live source most frames that are read may be dropped: results are counted instead.
    results = stages.results(_frames(source, timer, None if source.is_live else limit, repeat_to))
    total = min(filter(None, (max(source.expected, repeat_to) if source.expected else None, limit)), default=None)
    started = perf_counter()
    unit = "image" if source.frame_rate is None else "frame"
    try:
        with (
            closing(results),
            tqdm(total=total, unit=unit, desc="segment", smoothing=0.1, dynamic_ncols=True, leave=False) as progress,
        ):
            count = _hand_over(results, source, sinks, timer=timer, limit=limit, progress=progress)
    except (EspalierError, KeyboardInterrupt):  # what was left out until then is known nowhere else
        log_failures(source.failures, FAILURES_SHOWN)
        raise
    if count == 0 and source.failures:
        first, *others = failures = list(dict.fromkeys(source.failures))
        log_failures(others, FAILURES_SHOWN)
        raise DataError(f"None of the {len(failures)} images could be used. The first: {first}")
    if count == 0:
        raise DataError("There was no image to segment. Check --source and --limit.")
    return PredictionStats(count, perf_counter() - started)


def _hand_over(
    results: Iterable["RenderedFrame"],
    source: FrameSource,
    sinks: Sequence[Sink],
    *,
    timer: StageTimer,
    limit: int | None,
    progress: "tqdm[Any]",
) -> int:
    """Hand each result to every sink, and return their number.

    A result that does not fit into its file format is added to the failures of the source.
    """
    count = 0
    for frame, result, shown in results:
        try:
            with timer.measure("write"):
                answers = [sink.write(frame, shown if sink.wants_rgb else result) for sink in sinks]
        except FormatTooSmall as error:
            source.leave_out(frame.name, error)
            continue
        count += 1
        progress.update()
        if not all(answers) or (source.is_live and count == limit):
            break
    return count


class RenderedFrame(NamedTuple):
    """A frame on its way to the sinks.

    Attributes:
        frame: As it was read.
        result: Of the renderer.
        shown: The result as (h, w, 3) RGB, if a sink wants that; else the result itself.
    """

    frame: Frame
    result: NDArray[Any]
    shown: NDArray[Any]


@dataclass(frozen=True)
class _Stages:
    """The stages between the frames of a source and the sinks; each yields in order.

    Args:
        segmenter: The network and its renderer.
        source: An image that cannot be used is added to its failures.
        timer: Measures every stage.
        batch_size: Largest number of images at once.
        is_shown: A sink wants (h, w, 3) RGB.
    """

    segmenter: Segmenter
    source: FrameSource
    timer: StageTimer
    batch_size: int
    is_shown: bool = field(kw_only=True)

    def results(self, frames: Generator[Frame]) -> Generator[RenderedFrame]:
        """Yield the results; reading, the network and drawing run in one thread each, a few frames ahead of the next.

        Of a live source only reading has a thread, so that a result is as new as possible.
        """
        if self.source.is_live:
            return self.drawn(self.predicted(self.prepared(read_ahead(frames, self.batch_size + 2, keep_newest=True))))
        # Photos can be large: fewer of them wait.
        waiting = 1 if self.source.frame_rate is None else self.batch_size
        prepared = read_ahead(self.prepared(frames), self.batch_size)
        predicted = read_ahead(self.predicted(prepared), waiting)
        return read_ahead(self.drawn(predicted), waiting)

    def prepared(self, frames: Generator[Frame]) -> Generator[tuple[Frame, Prepared]]:
        """Yield each frame that can be used with the network's input."""
        with closing(frames):
            for frame in frames:
                try:
                    with self.timer.measure("preprocess"):
                        prepared = self.segmenter.prepare(frame.image)
                except DataError as error:
                    self.source.leave_out(frame.name, error)
                else:
                    yield frame, prepared

    def predicted(self, prepared: Generator[tuple[Frame, Prepared]]) -> Generator[tuple[Frame, Geometry, Tensor]]:
        """Yield each frame with the place of its image on the input, and its logits (K, H, W)."""
        with closing(prepared):
            for chunk in chunked(prepared, self.batch_size):
                outputs = batched_logits(self.segmenter, [each for _, each in chunk], self.timer)
                for (frame, each), output in zip(chunk, outputs, strict=True):
                    if isinstance(output, DataError):
                        self.source.leave_out(frame.name, output)
                    else:
                        yield frame, each.geometry, output

    def drawn(self, predicted: Generator[tuple[Frame, Geometry, Tensor]]) -> Generator[RenderedFrame]:
        """Yield the result of each frame."""
        with closing(predicted):
            for frame, geometry, logits in predicted:
                with self.timer.measure("restore"):
                    scores = self.segmenter.scores(logits, geometry)
                with self.timer.measure("draw"):
                    result = self.segmenter.render(frame.image, scores)
                    shown = self.segmenter.show(result) if self.is_shown else result
                yield RenderedFrame(frame, result, shown)


def _frames(source: FrameSource, timer: StageTimer, limit: int | None, repeat_to: int) -> Generator[Frame]:
    """Yield up to `limit` frames of a source, from the beginning again until there were `repeat_to`; time each."""
    count, start = 0, perf_counter()
    while True:
        before = count
        for frame in source:
            timer.seconds["read"].append(perf_counter() - start)
            yield frame
            count += 1
            if count == limit:
                return
            start = perf_counter()
        if count >= repeat_to or count == before:
            return


def batched_logits(network: BaseInference, prepared: Sequence[Prepared], timer: StageTimer) -> list[Tensor | DataError]:
    """Return the logits (K, ...) of each input, or why the network cannot take it; inputs of one size run as one batch.

    Raises:
        TrainingError: The memory does not suffice for the batch.
    """
    logits: dict[int, Tensor | DataError] = {}
    for positions in batches_of_one_size([each.inputs.shape for each in prepared], len(prepared)):
        inputs = [prepared[position].inputs for position in positions]
        try:
            with timer.measure("model", len(positions)), _errors_of_torch(network, inputs):
                batch = network.logits(inputs)
        except DataError as error:
            logits.update(dict.fromkeys(positions, error))
        else:
            logits.update(zip(positions, batch, strict=True))
    return [logits[position] for position in range(len(prepared))]


@contextmanager
def _errors_of_torch(network: BaseInference, inputs: Sequence[NDArray[np.float32]]) -> Iterator[None]:
    """Turn an error of torch, in a block that runs a network on inputs of one size, into one with its repair.

    Raises:
        DataError: The network cannot take inputs of this size.
        TrainingError: The memory does not suffice.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if is_out_of_memory(error):
            raise TrainingError(
                f"Memory ran out with {len(inputs)} images at once. Make --batch-size smaller, or use a network "
                "that was trained with a resize."
            ) from error
        # The device or the code, which then take no other input either.
        if isinstance(error, (NotImplementedError, RecursionError)) or _OF_DEVICE.search(text):
            raise
        logger.debug("The network fails.", exc_info=True)
        repair = "Use images of other sizes, or --window" if isinstance(network, Segmenter) else "Use others"
        size = "x".join(map(str, inputs[0].shape))
        raise DataError(
            f"The network cannot take an input of {size} ({(text.splitlines() or ['no reason is given'])[0][:300]}). "
            f"{repair}."
        ) from error


def report_predictions(stats: PredictionStats, source: FrameSource, sinks: Sequence[Sink]) -> None:
    """Log the speed, the written files, and everything that did not work.

    Raises:
        DataError: Some of the images could not be used, although all others were.
    """
    for remark in dict.fromkeys([*source.remarks, *(remark for sink in sinks for remark in sink.remarks)]):
        logger.warning("%s", remark)
    unit = "images" if source.frame_rate is None else "frames"
    rate = stats.images / max(stats.seconds, 1e-9)
    logger.info("%d %s in %.1f s, %.1f %s/s", stats.images, unit, stats.seconds, rate, unit)
    files = list(dict.fromkeys(path for sink in sinks for path in sink.written))
    if files:
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        logger.info("Written: %s%s", in_one_line(files[0]), more)
    failures = log_failures(source.failures)
    if failures:
        raise DataError(
            f"{len(failures)} of {len(failures) + stats.images} images could not be used; all others are done. "
            "Their names are listed above. Repair or remove them and run again."
        )


def log_failures(failures: Iterable[str], most: int | None = None) -> list[str]:
    """Log each failure once, and return them; a source that is read again has each of them again.

    Args:
        failures: A line for each sample.
        most: Lines to log; further ones are counted. None: all.
    """
    different = list(dict.fromkeys(failures))
    for failure in different[:most]:
        logger.error("%s", failure)
    if most is not None and len(different) > most:
        logger.error("... and %d more", len(different) - most)
    return different
