"""Use a trained network: `python inference.py --resume saved/people/RUN --source photo.jpg --output out`.

A classifier writes a table: `--source photos --output table.csv`, or `--source series.ts`.

In a notebook, `load(checkpoint).probabilities(pictures)` or `predict(checkpoint, pictures)`.
"""

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import cli
from config.assemble import build_export_ids, build_model, build_preprocessing, loader_section, task_of
from config.input_size import window_size, with_input_size
from config.plugins import load_plugins
from config.saved import without_pretrained_weights
from config.shared import shared_values
from logger.console import setup_logging
from utils.errors import ConfigError, DataError

if TYPE_CHECKING:  # torch takes seconds to load: --help is answered without it
    from base.base_inference import BaseInference
    from base.views import Views
    from visual.classifier import Classifier
    from visual.segmenter import Segmenter
    from visual.sinks import Sink
    from visual.sources import Source

logger = logging.getLogger("espalier")
BENCHMARK_PICTURES = 50


def load(
    checkpoint: str | Path,
    *,
    device: str | None = "cpu",
    plugins: Sequence[str] = (),
    window: Sequence[int] | None = None,
    views: "Views | None" = None,
) -> "Segmenter":
    """A trained network for segmentation with its preprocessing, ready for pictures.

    As `load_any`, but a network for another task is refused.
    """
    from visual.segmenter import Segmenter

    found = load_any(checkpoint, device=device, plugins=plugins, window=window, views=views)
    if not isinstance(found, Segmenter):
        raise ConfigError(f"{checkpoint}: it classifies, and has no masks to give. Use inference.load_any.")
    return found


def load_any(
    checkpoint: str | Path,
    *,
    device: str | None = "cpu",
    plugins: Sequence[str] = (),
    window: Sequence[int] | None = None,
    views: "Views | None" = None,
) -> "Segmenter | Classifier":
    """A trained network with its preprocessing: a `Segmenter`, or a `Classifier` for pictures or series.

    Args:
        checkpoint: A checkpoint, a run folder (its best one), or a file of export.py.
        device: `cpu`, or the number of a GPU; None takes the first GPU, where there is one.
        plugins: Python files with the classes of one's own that its config names; nothing else is ever run.
        window: Slide a window (height, width) over pictures at their own size; () takes the size of the input.
        views: Overlap of the windows; flips and scales to average over.

    Raises:
        CheckpointError: It is missing, damaged, or does not fit its config.
        ConfigError: Its config names what is not there.
    """
    import data_loader
    import models
    from base.base_inference import choose_device, read_trained
    from base.views import Views, with_views
    from exporting.network import is_exported, open_exported
    from visual.classifier import Classifier
    from visual.segmenter import Segmenter

    load_plugins(plugins)
    catalogue, target = {**models.SECTIONS, **data_loader.SECTIONS}, choose_device(device)
    kinds: dict[str, type[BaseInference]] = {"segmentation": Segmenter, "classification": Classifier}

    def build(config: dict[str, Any]) -> Any:
        config = without_pretrained_weights(config)
        return build_model(config, catalogue, shared_values(config)), build_preprocessing(config, catalogue)

    if is_exported(checkpoint):
        network, config = open_exported(Path(checkpoint), target)
        found: Any = kinds[task_of(config, catalogue)](network, build_preprocessing(config, catalogue), device=target)
        found.config = config
    else:
        task = task_of(read_trained(Path(checkpoint))[0]["config"], catalogue)
        found = kinds[task].from_checkpoint(checkpoint, build, device=target)
    if isinstance(found, Classifier):
        return found
    assert isinstance(found, Segmenter)
    if window is not None:
        config = found.config
        section = loader_section(config, "valid") or loader_section(config, "train") or "train_loader"
        views = replace(views or Views(), window=window_size(config, section, window, catalogue))
        found.preprocess = build_preprocessing(with_input_size(config, None, catalogue), catalogue)
    found.model = with_views(found.model, views or Views())
    return found


def predict(checkpoint: str | Path, pictures: Iterable[Any]) -> list[Any]:
    """The class ids (h, w) of pictures (h, w, 3) uint8 RGB, each at its own size; of a classifier, one id each."""
    from visual.segmenter import Segmenter

    network = load_any(checkpoint)
    if isinstance(network, Segmenter):
        return network.masks(pictures)
    return [int(each.argmax()) for each in network.probabilities(pictures)]


def main(arguments: argparse.Namespace) -> None:
    """Run the command line."""
    from base.views import Views
    from data_loader.pictures import read_picture
    from visual.compositing import parse_background
    from visual.looks import make_look
    from visual.outputs import open_sinks
    from visual.segmenter import Segmenter
    from visual.sources import PHOTO_SUFFIXES, open_source
    from visual.temporal import TemporalSmoothing

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
        background = parse_background(arguments.background, read_picture) if arguments.background else None
        mode = arguments.mode or ("background" if background else "overlay")
        default_read = partial(read_picture, in_channels=getattr(segmenter.preprocess, "in_channels", 3))
        read = getattr(segmenter.preprocess, "read", default_read)  # not every network takes photos
        suffixes = getattr(segmenter.preprocess, "suffixes", PHOTO_SUFFIXES)
        source = open_source(arguments.source, read, excluded=arguments.output, suffixes=suffixes)
        foreground = [segmenter.class_id(name) for name in arguments.classes] if arguments.classes else None
        ids = _own_ids(segmenter) if arguments.own_ids else None
        segmenter.look = make_look(
            mode, background=background, foreground=foreground, is_soft=arguments.soft, export_ids=ids
        )
        if arguments.smooth and source.frame_rate is not None:
            segmenter.smoothing = TemporalSmoothing(arguments.smooth)
        sinks = open_sinks(
            source,
            segmenter.look,
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
    import data_loader

    ids = build_export_ids(segmenter.config, data_loader.SECTIONS)
    if ids is None:
        raise ConfigError(
            "--own-ids: the network's data has no ids but those of the classes. Only a loader with a label_map, or "
            "one of a known data set such as Cityscapes, has others. Leave it out."
        )
    return ids


def _classify(arguments: argparse.Namespace, classifier: "Classifier") -> None:
    """Write the predictions of pictures, or of a file of series, into a table.

    Raises:
        DataError: Some pictures could not be read; the others are in the table.
    """
    from itertools import islice

    from data_loader.pictures import read_picture
    from data_loader.series_files import SUFFIXES, read_series
    from visual.classifier import table_file, write_table
    from visual.sources import open_source

    source, file = Path(arguments.source), table_file(arguments.output)
    failures: list[str] = []
    samples: Iterable[tuple[str, Any]]
    if source.suffix in SUFFIXES:
        found = read_series(source)
        samples = zip(map(str, found.rows), found.series, strict=True)
    else:
        read = partial(read_picture, in_channels=getattr(classifier.preprocess, "in_channels", None) or 3)
        frames = open_source(arguments.source, read, excluded=arguments.output)
        samples, failures = ((frame.name, frame.picture) for frame in frames), frames.failures
    predictions = classifier.classify(islice(samples, arguments.limit), arguments.batch_size)
    first_column = "row" if source.suffix in SUFFIXES else "file"
    count = write_table(predictions, classifier.class_names, file, first_column=first_column)
    logger.info("%d predictions: %s", count, file)
    if failures:
        for failure in failures:
            logger.error("%s", failure)
        raise DataError(
            f"{len(failures)} of {len(failures) + count} pictures could not be used; all others are done. Their names "
            "stand above. Mend or remove them and run again."
        )


def _run(arguments: argparse.Namespace, segmenter: "Segmenter", source: "Source", sinks: "Sequence[Sink]") -> None:
    """Segment, and say what came of it."""
    from contextlib import ExitStack

    import torch

    from visual.loop import segment
    from visual.report import report
    from visual.stages import Stages

    is_exact = arguments.benchmark and segmenter.device.type == "cuda"
    stages = Stages(partial(torch.cuda.synchronize, segmenter.device) if is_exact else None)
    with ExitStack() as open_files:
        for sink in sinks:
            open_files.enter_context(sink)
        outcome = segment(
            segmenter,
            source,
            sinks,
            stages=stages,
            batch_size=1 if arguments.window is not None else arguments.batch_size,
            limit=arguments.limit,
            repeat_to=BENCHMARK_PICTURES if arguments.benchmark and source.frame_rate is None else 0,
        )
    if arguments.benchmark:
        sys.stdout.write(f"{stages.table()}\n{'pictures/s':<12}{outcome.pictures / outcome.seconds:>12.2f}\n")
    report(outcome, source, sinks)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(description="Segment photos, folders of photos, videos, or a camera's picture.")
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
    options.add_argument("--background", metavar="WHAT", help="a colour ('#00ff00'), a picture, or blur (default)")
    options.add_argument(
        "--class", dest="classes", action="append", metavar="NAME", help="what to keep; default: all but 0"
    )
    options.add_argument("--own-ids", action="store_true", help="masks in the data set's own ids, as its server wants")
    options.add_argument("--soft", action="store_true", help="soft edges drawn to the picture's own")
    options.add_argument("--smooth", type=_share, default=0.0, metavar="0..1", help="steadier masks in videos")
    options.add_argument("--batch-size", type=cli.positive_int, default=4, metavar="N", help="pictures at once")
    options.add_argument("--limit", type=cli.positive_int, metavar="N", help="stop after N pictures")
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
