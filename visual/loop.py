"""The loop of inference: read ahead, run the network on batches, draw, hand on."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from time import perf_counter
from typing import NamedTuple, Never

from torch import Tensor
from tqdm import tqdm

from base.base_inference import Prepared, batches_of_one_size
from utils.errors import DataError, TrainingError
from visual.ahead import read_ahead
from visual.compositing import to_show
from visual.segmenter import Segmenter
from visual.sinks import Sink
from visual.sources import Frame, Source
from visual.stages import Stages


class Outcome(NamedTuple):
    """What a run of inference did.

    Attributes:
        pictures: How many were segmented.
        seconds: How long it took.
    """

    pictures: int
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
        source: A picture that cannot be used is added to its failures and the others go on.
        sinks: The first that has had enough ends the loop.
        stages: Told how long everything takes.
        batch_size: Most pictures at once; a live source is served one at a time.
        limit: Stop after so many pictures.
        repeat_to: Read the source again until so many were segmented: to measure with few pictures.

    Raises:
        DataError: Not a single picture could be used.
    """
    size = 1 if source.is_live else batch_size
    frames = stages.each("read", islice(_repeated(source, repeat_to), limit))
    total = min(filter(None, (max(source.expected, repeat_to) if source.expected else None, limit)), default=None)
    started, count = perf_counter(), 0
    unit = "picture" if source.frame_rate is None else "frame"
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
                prepared = segmenter.prepare(frame.picture)
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
            result = segmenter.render(frame.picture, probabilities)
        with stages.measure("write"):
            shown = to_show(result, segmenter.num_classes) if any(sink.wants_rgb for sink in sinks) else result
            answers = [sink.write(frame, shown if sink.wants_rgb else result) for sink in sinks]
        progress.update()
        if not all(answers):
            return False
    return True


@contextmanager
def _memory_errors(pictures: int) -> Iterator[None]:
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
            f"Memory ran out with {pictures} pictures at once. Make --batch-size smaller, or use a network that was "
            "trained with a resize."
        ) from error


def _nothing_worked(source: Source) -> str:
    if source.failures:
        return f"None of the {len(source.failures)} pictures could be used. The first: {source.failures[0]}"
    return "There was no picture to segment. Check --source and --limit."
