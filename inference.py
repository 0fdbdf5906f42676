"""Use a trained network: `python inference.py --resume saved/people/RUN --source photo.jpg --output out`.

A classifier writes a table: `--source photos --output table.csv`, or `--source series.ts`.

In a notebook, `load(checkpoint).probabilities(images)` or `predict(checkpoint, images)`.
"""

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build import build_predictor, read_export_ids
from config import cli
from logger.console import setup_logging
from utils.errors import ConfigError, DataError

if TYPE_CHECKING:  # torch takes seconds to load: --help is answered without it
    from models.inference.views import Views
    from predictor.classifier import Classifier
    from predictor.io.sinks import Sink
    from predictor.io.sources import FrameSource
    from predictor.segmenter import Segmenter

logger = logging.getLogger("espalier")
BENCHMARK_IMAGES = 50


def load(
    checkpoint: str | Path,
    *,
    device: str | None = "cpu",
    plugins: Sequence[str] = (),
    window: Sequence[int] | None = None,
    views: "Views | None" = None,
) -> "Segmenter":
    """A trained network for segmentation with its preprocessing, ready for images.

    As `load_any`, but a network for another task is refused.
    """
    from predictor.segmenter import Segmenter

    found = load_any(checkpoint, device=device, plugins=plugins, window=window, views=views)
    if not isinstance(found, Segmenter):
        raise ConfigError(f"{checkpoint}: it classifies, and has no masks to give. Use inference.load_any.")
    return found


load_any = build_predictor


def predict(checkpoint: str | Path, images: Iterable[Any]) -> list[Any]:
    """The class ids (h, w) of images (h, w, 3) uint8 RGB, each at its own size; of a classifier, one id each."""
    from predictor.segmenter import Segmenter

    network = load_any(checkpoint)
    if isinstance(network, Segmenter):
        return network.masks(images)
    return [int(each.argmax()) for each in network.probabilities(images)]


def main(arguments: argparse.Namespace) -> None:
    """Run the command line."""
    from data_loader.images.files import read_image
    from models.inference.views import Views
    from predictor.compositing import parse_background
    from predictor.io.sinks import open_sinks
    from predictor.io.sources import PHOTO_SUFFIXES, open_source
    from predictor.rendering import make_renderer
    from predictor.segmenter import Segmenter, TemporalSmoothing

    close_logging = setup_logging(None)
    try:
        segmenter = load_any(
            arguments.resume,
            device=arguments.devices,
            plugins=arguments.plugin,
            window=arguments.window,
            views=Views(windows_at_once=arguments.batch_size, **cli.views_of(arguments)),
        )
        if not isinstance(segmenter, Segmenter):
            _classify(arguments, segmenter)
            return
        background = parse_background(arguments.background, read_image) if arguments.background else None
        mode = arguments.mode or ("background" if background else "overlay")
        default_read = partial(read_image, in_channels=getattr(segmenter.preprocess, "in_channels", 3))
        read = getattr(segmenter.preprocess, "read", default_read)  # not every network takes photos
        suffixes = getattr(segmenter.preprocess, "suffixes", PHOTO_SUFFIXES)
        source = open_source(arguments.source, read, excluded=arguments.output, suffixes=suffixes)
        foreground = [segmenter.class_id(name) for name in arguments.classes] if arguments.classes else None
        ids = _own_ids(segmenter) if arguments.own_ids else None
        segmenter.renderer = make_renderer(
            mode, background=background, foreground=foreground, is_soft=arguments.soft, export_ids=ids
        )
        if arguments.smooth and source.frame_rate is not None:
            segmenter.smoothing = TemporalSmoothing(arguments.smooth)
        sinks = open_sinks(
            source,
            segmenter.renderer,
            arguments.output,
            is_shown=arguments.show or (source.is_live and arguments.output is None),
            may_be_empty=arguments.benchmark,
            originals=[Path(path) for path in (arguments.resume, arguments.background) if path],
        )
        _run(arguments, segmenter, source, sinks)
    except KeyboardInterrupt:
        logger.warning("Interrupted. What was done so far is kept.")
        raise SystemExit(130) from None
    finally:
        close_logging()


def _own_ids(segmenter: "Segmenter") -> list[int]:
    """The data set's own id of each class, for `--own-ids`."""
    ids = read_export_ids(segmenter.config)
    if ids is None:
        raise ConfigError(
            "--own-ids: the network's data has no ids but those of the classes. Only a loader with a label_map, or "
            "one of a known data set such as Cityscapes, has others. Leave it out."
        )
    return ids


def _classify(arguments: argparse.Namespace, classifier: "Classifier") -> None:
    """Write the predictions of images, or of a file of series, into a table.

    Raises:
        DataError: Some images could not be read; the others are in the table.
    """
    from itertools import islice

    from data_loader.images.files import read_image
    from data_loader.time_series.files import SUFFIXES, read_series
    from predictor.classifier import table_file, write_table
    from predictor.io.sources import open_source

    source, file = Path(arguments.source), table_file(arguments.output)
    failures: list[str] = []
    samples: Iterable[tuple[str, Any]]
    if source.suffix in SUFFIXES:
        found = read_series(source)
        samples = zip(map(str, found.rows), found.series, strict=True)
    else:
        read = partial(read_image, in_channels=getattr(classifier.preprocess, "in_channels", None) or 3)
        frames = open_source(arguments.source, read, excluded=arguments.output)
        samples, failures = ((frame.name, frame.image) for frame in frames), frames.failures
    predictions = classifier.classify(islice(samples, arguments.limit), arguments.batch_size)
    first_column = "row" if source.suffix in SUFFIXES else "file"
    count = write_table(predictions, classifier.class_names, file, first_column=first_column)
    logger.info("%d predictions: %s", count, file)
    if failures:
        for failure in failures:
            logger.error("%s", failure)
        raise DataError(
            f"{len(failures)} of {len(failures) + count} images could not be used; all others are done. Their names "
            "stand above. Mend or remove them and run again."
        )


def _run(arguments: argparse.Namespace, segmenter: "Segmenter", source: "FrameSource", sinks: "Sequence[Sink]") -> None:
    """Segment, and say what came of it."""
    from contextlib import ExitStack

    import torch

    from predictor.loop import StageTimer, predict_all, report_predictions

    is_exact = arguments.benchmark and segmenter.device.type == "cuda"
    stages = StageTimer(partial(torch.cuda.synchronize, segmenter.device) if is_exact else None)
    with ExitStack() as open_files:
        for sink in sinks:
            open_files.enter_context(sink)
        outcome = predict_all(
            segmenter,
            source,
            sinks,
            timer=stages,
            batch_size=1 if arguments.window is not None else arguments.batch_size,
            limit=arguments.limit,
            repeat_to=BENCHMARK_IMAGES if arguments.benchmark and source.frame_rate is None else 0,
        )
    if arguments.benchmark:
        sys.stdout.write(f"{stages.table()}\n{'pictures/s':<12}{outcome.images / outcome.seconds:>12.2f}\n")
    report_predictions(outcome, source, sinks)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(description="Segment photos, folders of photos, videos, or a camera's image.")
    network = options.add_mutually_exclusive_group(required=True)
    network.add_argument("--resume", metavar="FILE", help="a checkpoint, or a run folder")
    network.add_argument("--model", dest="resume", metavar="FILE", help="a network that export.py wrote: .onnx or .pt2")
    options.add_argument(
        "--source", required=True, help="a photo, a folder, a video, a camera's number (0), or a .ts or .npz of series"
    )
    options.add_argument(
        "--output", type=Path, metavar="PATH", help="a file or a folder for the results; of a classifier a .csv"
    )
    options.add_argument("--mode", choices=["mask", "overlay", "cutout", "background"], help="default: overlay")
    options.add_argument("--background", metavar="WHAT", help="a colour ('#00ff00'), an image, or blur (default)")
    options.add_argument(
        "--class", dest="classes", action="append", metavar="NAME", help="what to keep; default: all but 0"
    )
    options.add_argument("--own-ids", action="store_true", help="masks in the data set's own ids, as its server wants")
    options.add_argument("--soft", action="store_true", help="soft edges drawn to the image's own")
    options.add_argument("--smooth", type=_share, default=0.0, metavar="0..1", help="steadier masks in videos")
    options.add_argument("--batch-size", type=cli.positive_int, default=4, metavar="N", help="images at once")
    options.add_argument("--limit", type=cli.positive_int, metavar="N", help="stop after N images")
    options.add_argument("--show", action="store_true", help="show the results in a window; q quits")
    options.add_argument("--benchmark", action="store_true", help="print milliseconds per stage")
    cli.add_view_arguments(options)
    cli.add_run_arguments(options)
    return options


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be from 0 to below 1")
    return value


if __name__ == "__main__":
    sys.exit(cli.run_command(main, parser()))
