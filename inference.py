"""Use a trained network: `python inference.py --resume saved/people/RUN --source photo.jpg --output out`.

One comes with Espalier: `python inference.py --model people --source photo.jpg --output cut --mode cutout`.

A classifier writes a table: `--source photos --output table.csv`, or `--source series.ts`.

In a notebook, `load(checkpoint).probabilities(images)` or `predict(checkpoint, images)`.
"""

import argparse
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build import build_predictor, registry
from config import cli
from config.variants import dataset_ids
from logger.console import setup_logging
from utils.errors import ConfigError, DataError, EspalierError, joined_faults
from utils.writing.outputs import PREDICTIONS, Originals, require_output
from utils.writing.text import in_one_line, write_out

if TYPE_CHECKING:  # torch takes seconds to load: --help is answered without it
    from models.inference.views import Views
    from predictor.classifier import Classifier
    from predictor.io.frames import FrameSource
    from predictor.io.sink import Sink
    from predictor.loop import PredictionStats, StageTimer
    from predictor.segmenter import Segmenter

logger = logging.getLogger("espalier")
BENCHMARK_IMAGES = 50
# Options of results that are images, with their names among the parsed arguments.
OF_IMAGES = {
    "mode": "--mode",
    "background": "--background",
    "classes": "--class",
    "legend": "--no-legend",
    "own_ids": "--own-ids",
    "soft": "--soft",
    "smooth": "--smooth",
    "show": "--show",
    "overwrite": "--overwrite",
    "overlap": "--overlap",
}


load_any = build_predictor


def load(
    checkpoint: str | Path,
    *,
    device: str | None = "cpu",
    plugins: Sequence[str] = (),
    window: Sequence[int] | None = None,
    views: "Views | None" = None,
) -> "Segmenter":
    """Return a trained network for segmentation with its preprocessing, ready for images.

    As `load_any`, which is `build.build_predictor`, but a network for classification is refused.
    """
    from predictor.segmenter import Segmenter

    found = build_predictor(checkpoint, device=device, plugins=plugins, window=window, views=views)
    if not isinstance(found, Segmenter):
        raise ConfigError(f"{checkpoint}: it classifies, and has no masks to give. Use inference.load_any.")
    return found


def predict(checkpoint: str | Path, images: Iterable[Any]) -> list[Any]:
    """Return the class ids (h, w) of images (h, w, 3) uint8 RGB, each at its size; of a classifier, one id each."""
    from predictor.segmenter import Segmenter

    network = build_predictor(checkpoint)
    if isinstance(network, Segmenter):
        return network.masks(images)
    return [int(each.argmax()) for each in network.probabilities(images)]


def read_export_ids(config: Mapping[str, Any]) -> list[int]:
    """Return the data set's id of each class, for `--own-ids`.

    Raises:
        ConfigError: The loader of the config knows no other ids than 0..K-1.
    """
    ids = dataset_ids(config, registry())
    if ids is None:
        raise ConfigError(
            "--own-ids: the network's data has no ids but those of the classes. Only a loader with a label_map, or "
            "one of a known data set such as Cityscapes, has others. Leave it out."
        )
    return ids


def segment(arguments: argparse.Namespace, segmenter: "Segmenter") -> None:
    """Render the prediction of every image of the source, as the command line asks.

    Raises:
        ConfigError: An option does not fit the network.
        DataError: Some images could not be used; the others are done.
    """
    from data_loader.images.files import read_image
    from predictor.compositing import parse_background
    from predictor.io.sinks import outputs_of
    from predictor.io.sources import PHOTO_SUFFIXES, open_sources
    from predictor.loop import report_predictions
    from predictor.rendering import make_renderer

    max_mb = arguments.max_decoded_mb
    read_background = partial(read_image, max_decoded_mb=max_mb)
    background = parse_background(arguments.background, read_background) if arguments.background else None
    export_ids = read_export_ids(segmenter.config) if arguments.own_ids else None
    preprocess = segmenter.preprocess
    default_read = partial(read_image, in_channels=getattr(preprocess, "in_channels", 3), max_decoded_mb=max_mb)
    read = getattr(preprocess, "read", default_read)  # a network may take files that are no photos
    suffixes = getattr(preprocess, "suffixes", PHOTO_SUFFIXES)
    sources = open_sources(arguments.source, read, excluded=arguments.output, suffixes=suffixes)
    segmenter.renderer = make_renderer(
        arguments.mode or ("background" if background else "overlay"),
        background=background,
        foreground=[segmenter.class_id(name) for name in arguments.classes] if arguments.classes else None,
        is_soft=arguments.soft,
        export_ids=export_ids,
        palette=segmenter.palette,
        has_legend=arguments.legend,
    )
    segmenter.has_legend = arguments.legend
    faults: list[DataError] = []
    limit = arguments.limit
    for source, output in zip(sources, outputs_of(sources, segmenter.renderer, arguments.output), strict=True):
        try:
            stats, sinks = segment_source(arguments, segmenter, source, output, limit)
            limit = None if limit is None else limit - stats.images
            report_predictions(stats, source, sinks)
        except DataError as error:
            faults.append(error)
        if limit == 0:
            break
    if faults:
        raise joined_faults(faults)


def segment_source(
    arguments: argparse.Namespace, segmenter: "Segmenter", source: "FrameSource", output: Path | None, limit: int | None
) -> "tuple[PredictionStats, list[Sink]]":
    """Render the prediction of every image of one source, and return counts and the sinks, which are finished.

    Raises:
        ConfigError: The output cannot hold such results.
        DataError: No image could be used, or a result cannot be written.
    """
    from predictor.io.sinks import open_sinks
    from predictor.loop import predict_all
    from predictor.segmenter import TemporalSmoothing
    from utils.environment import keep_freed_memory

    is_video = source.frame_rate is not None
    if is_video:  # all frames have one size: the memory of one serves the next, which saves a tenth of the processor
        keep_freed_memory()
    is_smooth = arguments.smooth and is_video
    segmenter.smoothing = TemporalSmoothing(arguments.smooth) if is_smooth else None
    sinks = open_sinks(
        source,
        segmenter.renderer,
        output,
        is_shown=arguments.show or (source.is_live and output is None),
        may_be_empty=arguments.benchmark,
        originals=read_files(arguments, segmenter.config),
        may_overwrite=arguments.overwrite,
    )
    timer = stage_timer(arguments, segmenter)
    with ExitStack() as open_files:
        for sink in sinks:
            open_files.callback(sink.close)
        stats = predict_all(
            segmenter,
            source,
            sinks,
            timer=timer,
            batch_size=1 if arguments.window is not None else arguments.batch_size,
            limit=limit,
            repeat_to=BENCHMARK_IMAGES if arguments.benchmark and not is_video else 0,
        )
    if arguments.benchmark:
        write_out(f"{timer.table()}\n{'images/s':<12}{stats.images / stats.seconds:>12.2f}\n")
    return stats, sinks


def read_files(arguments: argparse.Namespace, config: Mapping[str, Any]) -> list[Path]:
    """Return the files that the command line names to be read, except the source, and those of the config's data."""
    from data_loader.originals import named_files

    named = [arguments.resume, arguments.background, *arguments.plugin]
    return [*(Path(file) for file in named if file), *named_files(config)]


def stage_timer(arguments: argparse.Namespace, network: "Segmenter | Classifier") -> "StageTimer":
    """Return a timer of the stages; a GPU computes while the program goes ahead, so that a benchmark waits for it."""
    import torch

    from predictor.loop import StageTimer

    is_synchronised = arguments.benchmark and network.device.type == "cuda"
    return StageTimer(partial(torch.cuda.synchronize, network.device) if is_synchronised else None)


def refuse_options_of_images(arguments: argparse.Namespace) -> None:
    """Raise if an option is given that has no meaning for a table.

    Raises:
        ConfigError: It is.
    """
    defaults = parser()
    given = [flag for name, flag in OF_IMAGES.items() if getattr(arguments, name) != defaults.get_default(name)]
    if given:
        raise ConfigError(
            f"{', '.join(given)}: the network classifies, and its results are the rows of a table. Only results that "
            "are images have such options. Leave them out."
        )


def classify(arguments: argparse.Namespace, classifier: "Classifier") -> None:
    """Write the predictions of images, or of a file of series, into a table; a benchmark writes one if it is named.

    Raises:
        ConfigError: An option is of results that are images.
        DataError: Some images or series could not be used; the others are in the table.
    """
    from data_loader.images.files import read_image
    from data_loader.time_series.preprocessing import series_of_source
    from predictor.classifier import TABLE, require_predictions, write_table
    from predictor.io.sources import PHOTO_SUFFIXES, open_source
    from predictor.loop import FAILURES_SHOWN, log_failures

    refuse_options_of_images(arguments)
    output = arguments.output or Path()
    file = output if output.suffix else output / TABLE
    if arguments.output is not None or not arguments.benchmark:
        read_by_command = [Path(arguments.source), *read_files(arguments, classifier.config)]
        require_output(file, "--output", PREDICTIONS, Originals(read_by_command))
    samples: Iterable[tuple[str, Any]]
    failures: list[str] = []
    remarks: list[str] = []
    is_stream = False
    preprocess, max_mb = classifier.preprocess, arguments.max_decoded_mb
    series = series_of_source(arguments.source, preprocess, max_decoded_mb=max_mb)
    if series is not None:
        first_column, unit = "row", "series"
        samples = zip(map(str, series.rows), series.series, strict=True)
    else:
        channels = getattr(preprocess, "in_channels", None) or 3
        default_read = partial(read_image, in_channels=channels, max_decoded_mb=max_mb)
        read, suffixes = getattr(preprocess, "read", default_read), getattr(preprocess, "suffixes", PHOTO_SUFFIXES)
        first_column, unit = "file", "images"
        frames = open_source(arguments.source, read, excluded=arguments.output, suffixes=suffixes)
        samples, failures = ((frame.name, frame.image) for frame in frames), frames.failures
        remarks, is_stream = frames.remarks, frames.frame_rate is not None
    timer, samples = stage_timer(arguments, classifier), islice(samples, arguments.limit)
    # The frames of a stream are alike: if the network cannot take one, there is nothing to wait for.
    use = partial(classifier.classify, timer=timer, failures=None if is_stream else failures)
    try:
        if arguments.benchmark and arguments.output is None:
            known = list(islice(samples, BENCHMARK_IMAGES))
            count = sum(1 for _ in use(islice(cycle(known), BENCHMARK_IMAGES), arguments.batch_size))
            require_predictions(count, failures, unit)
        else:
            predictions = use(samples, arguments.batch_size)
            count = write_table(predictions, classifier.class_names, file, first_column=first_column, failures=failures)
            logger.info("%d predictions: %s", count, in_one_line(file))
        if arguments.benchmark:
            write_out(f"{timer.table()}\n")
    except (EspalierError, KeyboardInterrupt) as error:
        log_failures((failure for failure in failures if failure not in str(error)), FAILURES_SHOWN)
        raise
    for remark in remarks:
        logger.warning("%s", remark)
    if failures := log_failures(failures):
        raise DataError(
            f"{len(failures)} of {len(failures) + count} {unit} could not be used; all others are done. Their names "
            "are above. Repair or remove them and run again."
        )


class ListModels(argparse.Action):
    """Print the networks that come with Espalier, with their scores and limits, and stop."""

    def __init__(self, option_strings: Sequence[str], dest: str, **texts: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **texts)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        """Print the cards."""
        from models.zoo.cards import cards

        write_out("\n".join(card.text() for card in cards()))
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = argparse.ArgumentParser(description="Segment photos, folders of photos, videos, or a camera's image.")
    network = options.add_mutually_exclusive_group(required=True)
    network.add_argument("--resume", metavar="FILE", help="a checkpoint, or a run folder")
    network.add_argument(
        "--model",
        dest="resume",
        metavar="NAME|FILE",
        help="people (see --list-models), or a .onnx or .pt2 of export.py",
    )
    options.add_argument("--list-models", action=ListModels, help="the networks that come with Espalier; then stop")
    options.add_argument(
        "--source",
        required=True,
        help="a photo, a video, a folder of them, a camera's number (0), or a .ts or .npz of series",
    )
    options.add_argument(
        "--output", type=Path, metavar="PATH", help="a file or a folder for the results; of a classifier a .csv"
    )
    options.add_argument(
        "--overwrite", action="store_true", help="replace images and videos that are not of an inference, too"
    )
    options.add_argument("--mode", choices=["mask", "overlay", "cutout", "background"], help="default: overlay")
    options.add_argument(
        "--background", metavar="COLOUR|IMAGE|blur", help="a colour ('#00ff00'), an image, or blur (default)"
    )
    options.add_argument(
        "--class", dest="classes", action="append", metavar="NAME", help="a class to show; default: all but 0"
    )
    options.add_argument(
        "--legend",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="names of the classes below overlays, if there are more than two (default)",
    )
    options.add_argument("--own-ids", action="store_true", help="masks in the ids of the data set, as its server wants")
    options.add_argument("--soft", action="store_true", help="soft edges that follow those of the image")
    options.add_argument("--smooth", type=fraction, default=0.0, metavar="0..1", help="steadier masks in videos")
    options.add_argument("--batch-size", type=cli.positive_int, default=4, metavar="N", help="images at once")
    options.add_argument("--limit", type=cli.positive_int, metavar="N", help="stop after N images")
    options.add_argument(
        "--max-decoded-mb",
        type=cli.positive_int,
        metavar="N",
        help="memory that a decoded file may take; default: max_decoded_mb of the loader",
    )
    options.add_argument("--show", action="store_true", help="show the results in a window; q quits")
    options.add_argument("--benchmark", action="store_true", help="print milliseconds per stage")
    cli.add_view_arguments(options)
    cli.add_run_arguments(options)
    return options


def fraction(text: str) -> float:
    """Return an argument that is a number from 0 to below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be from 0 to below 1")
    return value


def main(arguments: argparse.Namespace) -> None:
    """Run the command line."""
    from models.inference.views import Views
    from predictor.segmenter import Segmenter

    close_logging = setup_logging(None)
    try:
        predictor = build_predictor(
            arguments.resume,
            device=arguments.devices,
            plugins=arguments.plugin,
            window=arguments.window,
            views=Views(windows_at_once=arguments.batch_size, **cli.views_of(arguments)),
            max_decoded_mb=arguments.max_decoded_mb,
        )
        if isinstance(predictor, Segmenter):
            segment(arguments, predictor)
        else:
            classify(arguments, predictor)
    except KeyboardInterrupt:
        logger.warning("Everything written so far is complete.")
        raise
    finally:
        close_logging()


if __name__ == "__main__":
    sys.exit(cli.run_command(main, parser()))
