"""A checkpoint as a file for other programs: `python export.py --resume saved/people/RUN --output net.onnx`.

`export(...)` is the whole command as a function. Nothing is written unless the file gives what the checkpoint gives.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build import build_loader, build_predictor, build_preprocessing, loader_section, registry
from config import class_and_arguments, cli, shared_values
from config.checking.signatures import signature_of
from config.variants import input_size, with_input_size
from logger.console import setup_logging
from models.export.description import RECIPES, describe_export
from utils.errors import ConfigError, DataError
from utils.files import write_atomically, writing_problem

if TYPE_CHECKING:  # torch takes seconds to load: --help is answered without it
    from models.export.comparison import Comparison, Sample
    from models.export.files import Format
    from models.export.tracing import Traced
    from predictor.classifier import Classifier
    from predictor.segmenter import Segmenter

    Trained = Segmenter | Classifier

logger = logging.getLogger("espalier")
TRACED_SIZE = (256, 256)  # where neither the config nor the command line names one
SAMPLES_COMPARED = 16
PEOPLE = Path(__file__).resolve().parent / "data/people/images"


def export(
    resume: str | Path,
    output: Path,
    *,
    form: "Format" = "onnx",
    size: Sequence[int] | None = None,
    source: str | None = None,
    opset: int | None = None,
    plugins: Sequence[str] = (),
) -> "Comparison":
    """Write a checkpoint's network as a file that runs without this code, checked on real images or series.

    Args:
        resume: A checkpoint, or a run folder (its best one).
        output: The file, `.onnx` or `.pt2` as the format wants.
        form: `onnx` or `torch` (torch.export).
        size: (height, width) of the input; that of training where not given.
        source: Photos, or a file of series, to compare on; by default the config's test or valid data, else the photos
            of data/people.
        opset: Version of ONNX's operators.
        plugins: Python files with the classes of one's own that its config names.

    Raises:
        ExportError: The network cannot be exported, or the file's is another; nothing was written.
        EspalierError: Anything else that is the user's to mend.
    """
    import torch

    from models.export import comparison
    from models.export import files as formats
    from models.export import files as network
    from models.metrics.segmentation import Accuracy, MeanIoU
    from predictor.segmenter import Segmenter

    _check(Path(resume), output, formats.SUFFIXES[form])
    if form == "onnx":
        formats.require("onnx", "onnxscript", "onnxruntime")
    names = registry()
    trained = build_predictor(resume, plugins=plugins)
    section = loader_section(trained.config, "valid") or "train_loader"
    if size is not None:
        trained.config = with_input_size(trained.config, size, names)
        trained.preprocess = build_preprocessing(trained.config)
    samples, ignore_index = _samples(trained, source, names)
    first = next(samples, None)
    if first is None:
        raise DataError("There is nothing to compare the networks on. Name some images or series: --source PATH.")
    traced = _trace(trained, first, section, names)
    has_masks = isinstance(trained, Segmenter)
    recipe = RECIPES["segmentation" if has_masks else "classification", first.inputs.dim() + 1]
    description = _describe(trained, section, names, traced.num_classes, recipe)
    content = formats.to_bytes(traced, description, form, opset=opset)
    again, _ = network.from_bytes(content, form, torch.device("cpu"), name=str(output))
    metric = partial(MeanIoU if has_masks else Accuracy, traced.num_classes, ignore_index)
    compared = islice(chain([first], samples), SAMPLES_COMPARED)
    found = comparison.compare(trained.model, again, compared, metric, has_masks=has_masks)
    found.require_equal()
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, lambda file: file.write(content))
    for name, side in traced.sides.items():
        logger.info("%-7s %s", name, side)
    return found


def _check(resume: Path, output: Path, suffix: str) -> None:
    """Refuse an output that cannot be, before anything is computed."""
    if output.suffix.lower() != suffix:
        raise ConfigError(f"--output {output}: a file of this --format ends in {suffix}. Write {output.stem}{suffix}.")
    problem = "it is the checkpoint" if output.resolve() == resume.resolve() else writing_problem(output)
    if problem:
        raise ConfigError(f"--output {output}: cannot be written ({problem}). Name a file that you may write to.")


def _trace(trained: "Trained", sample: "Sample", section: str, names: Any) -> "Traced":
    """The network as a program, for inputs like a sample: images at the size of the config, series at their own."""
    from models.export.tracing import trace

    channels, *own_size = sample.inputs.shape
    if len(own_size) == 1:
        return trace(trained.model, channels, tuple(own_size))
    known_size = input_size(trained.config, section, names)
    traced = trace(trained.model, channels, known_size or TRACED_SIZE)
    if known_size is None and traced.sides["height"].fixed:
        raise ConfigError(
            f"--size: this network is exported for one size, but {section} has no resize. Add --size H W."
        )
    return traced


def _describe(trained: "Trained", section: str, names: Any, num_classes: int, recipe: str) -> dict[str, Any]:
    """What the file says of itself."""
    config = trained.config
    loader_class, arguments = class_and_arguments(config, section, names)
    known, spec = {**shared_values(config), **arguments}, config[section]
    return describe_export(
        trained.preprocess,
        recipe=recipe,
        loader=spec if isinstance(spec, str) else spec["type"],
        loader_arguments={
            name: known[name] for name in signature_of(loader_class.make_preprocessing).parameters if name in known
        },
        class_names=trained.class_names,
        num_classes=num_classes,
        origin={"name": config.get("name"), "arch": config["arch"]},
    )


def _samples(trained: "Trained", source: str | None, names: Any) -> tuple[Iterator["Sample"], int | None]:
    """Images or series to compare on, and the label that counts nowhere."""
    from data_loader.time_series.preprocessing import SeriesPreprocessing
    from models.export.comparison import samples_of_images, samples_of_loader

    for split in ("test", "valid") if source is None else ():
        try:
            loader = build_loader(trained.config, split, as_evaluation=True)
            if loader is not None:
                loader.prepare()
                return samples_of_loader(loader), loader.ignore_index
        except DataError as error:
            logger.warning("The %s data of the config is not used to compare: %s", split, error)
    if source is None and isinstance(trained.preprocess, SeriesPreprocessing):
        raise DataError("There are no series to compare the networks on. Name a file of them: --source FILE.ts.")
    return samples_of_images(_read(source or str(PEOPLE), trained), trained), None


def _read(source: str, trained: "Trained") -> Iterator[Any]:
    """The images of a photo, folder or video, or the series of a file."""
    from data_loader.images.files import read_image
    from data_loader.time_series.files import SUFFIXES, read_series
    from predictor.io.sources import open_source

    if Path(source).suffix in SUFFIXES:
        return iter(read_series(Path(source)).series)
    read = partial(read_image, in_channels=getattr(trained.preprocess, "in_channels", None) or 3)
    return (frame.image for frame in open_source(source, read))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(description="Write a checkpoint as a file for other programs, and check it.")
    options.add_argument("--resume", required=True, metavar="FILE", help="a checkpoint, or a run folder")
    options.add_argument("--format", choices=["onnx", "torch"], default="onnx", help="torch is torch.export's .pt2")
    options.add_argument("--output", type=Path, required=True, metavar="FILE", help="net.onnx or net.pt2")
    options.add_argument("--size", nargs=2, type=cli.positive_int, metavar=("H", "W"), help="of the input")
    options.add_argument(
        "--source", metavar="PATH", help="photos or series to compare on; default: the config's own data"
    )
    options.add_argument("--opset", type=int, metavar="N", help="version of ONNX's operators")
    options.add_argument(
        "--plugin", action="append", default=[], metavar="FILE.py", help="a file with your own classes"
    )
    options.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return options


def main(arguments: argparse.Namespace) -> None:
    """Run the command line."""
    close_logging = setup_logging(None)
    try:
        options = {name: getattr(arguments, name) for name in ("size", "source", "opset")}
        form, output = arguments.format, arguments.output
        found = export(arguments.resume, output, form=form, plugins=arguments.plugin, **options)
        megabytes = output.stat().st_size / 1e6
        sys.stdout.write(f"{found.text()}\nWritten: {output} ({megabytes:.1f} MB). Use it:\n")
        results = "out" if found.has_masks else "table.csv"
        sys.stdout.write(f"python inference.py --model {output} --source PATH --output {results}\n")
    finally:
        close_logging()


if __name__ == "__main__":
    sys.exit(cli.run_command(main, parser()))
