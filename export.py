"""A checkpoint as a file for other programs: `python export.py --resume saved/people/RUN --output net.onnx`.

`export(...)` is the whole command as a function. Nothing is written unless the file gives the checkpoint's results.
"""

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build import build_loader, build_predictor, build_preprocessing, registry
from config import class_and_arguments, cli, narrowed, shared_values
from config.checking.signatures import signature_of
from config.checking.splits import evaluation_section
from config.variants import with_input_size
from logger.console import setup_logging
from utils.errors import ConfigError, DataError
from utils.files import write_atomically
from utils.plugins import command_line
from utils.writing.outputs import EXPORTED, Originals, require_output
from utils.writing.text import in_one_line, write_out

if TYPE_CHECKING:  # torch takes seconds to load: --help is answered without it
    from numpy.typing import NDArray

    from base import BaseDataLoader
    from models.export.comparison import Comparison, Sample
    from models.export.files import Format
    from models.export.tracing import Traced
    from predictor.classifier import Classifier
    from predictor.segmenter import Segmenter

    Trained = Segmenter | Classifier

logger = logging.getLogger("espalier")
TRACED_SIZE = (256, 256)  # if neither the config nor the command line names one
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
        size: (height, width) of the input; by default that of training.
        source: Photos or arrays, or a file of series, to compare on; by default the config's test or valid data, else
            the photos of data/people.
        opset: Version of ONNX's operators.
        plugins: Python files with the custom classes that its config names.

    Raises:
        ExportError: The network cannot be exported, or gives other results from the file; nothing was written.
        EspalierError: Anything else that the user can repair.
    """
    import torch

    from models.export import files
    from models.export.comparison import compare
    from models.metrics.confusion import Accuracy, MeanIoU
    from predictor.segmenter import Segmenter

    require_suffix(output, files.SUFFIXES[form])
    require_output(output, "--output", EXPORTED[files.SUFFIXES[form]], Originals([Path(resume)]))
    if form == "onnx":
        files.require("onnx", "onnxscript", "onnxruntime")
    elif opset is not None:
        raise ConfigError(
            f"--opset {opset}: is a version of ONNX's operators, of which --format {form} has none. Leave it out, or "
            "write --format onnx."
        )
    trained = build_predictor(resume, plugins=plugins)
    if size is not None:
        trained.config = with_input_size(trained.config, size, registry())
        trained.preprocess = build_preprocessing(trained.config)
    samples, ignore_index = open_samples(trained, source)
    first = next(samples, None)
    if first is None:
        raise DataError("There is nothing to compare the networks on. Name some images or series: --source PATH.")
    traced = trace_network(trained, first)

    content = files.to_bytes(traced, description_of(trained, traced), form, opset=opset)

    # The file is written only after a network read back from it has given the same results.
    exported, _ = files.from_bytes(content, form, torch.device("cpu"), name=str(output))
    has_masks = isinstance(trained, Segmenter)
    metric = partial(MeanIoU if has_masks else Accuracy, exported.num_classes, ignore_index)
    compared = islice(chain([first], samples), SAMPLES_COMPARED)
    comparison = compare(trained.model, exported, compared, metric, has_masks=has_masks)
    comparison.require_equal()
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, lambda file: file.write(content))
    for name, side in traced.sides.items():
        logger.info("%-7s %s", name, side)
    return comparison


def description_of(trained: "Trained", traced: "Traced") -> dict[str, Any]:
    """Return what the file says of its network: how an input is made, and the meaning of the output."""
    from models.export import files
    from predictor.segmenter import Segmenter
    from utils.images.palette import of_loaders

    config, section, has_masks = trained.config, evaluation_section(trained.config), isinstance(trained, Segmenter)
    loader_class, arguments = class_and_arguments(config, section, registry())
    known, loader = {**shared_values(config), **arguments}, config[section]
    accepted = signature_of(loader_class.make_preprocessing).parameters
    return files.describe_export(
        trained.preprocess,
        recipe=files.recipe_of(trained.preprocess, has_masks=has_masks, num_outputs=traced.num_classes),
        loader=loader if isinstance(loader, str) else loader["type"],
        loader_arguments={name: known[name] for name in accepted if name in known},
        class_names=trained.class_names,
        palette=of_loaders(config, "palette"),
        num_classes=max(2, traced.num_classes),  # one channel separates two classes
        origin={"name": config.get("name"), "arch": config["arch"]},
    )


def require_suffix(output: Path, suffix: str) -> None:
    """Raise a `ConfigError` if the name of the output does not end as a file of its format does."""
    if output.suffix.lower() != suffix:
        raise ConfigError(f"--output {output}: a file of this --format ends in {suffix}. Write {output.stem}{suffix}.")


def open_samples(trained: "Trained", source: str | None) -> tuple[Iterator["Sample"], int | None]:
    """Return images or series to compare the networks on, and the label that does not count.

    They come from the source, else from the config's test or validation data, else they are the photos of data/people.

    Raises:
        DataError: There are no photos, arrays or series to compare on.
    """
    for split in ("test", "valid") if source is None else ():
        try:
            loader = build_loader(narrowed(trained.config), split, as_evaluation=True)
            if loader is not None:
                loader.prepare()
                return samples_of_loader(loader), loader.ignore_index
        except (ConfigError, DataError, OSError) as error:  # a loader of one's own may let OSError pass
            logger.warning("The %s data of the config is not used to compare: %s", split, error)
    return samples_of_source(trained, source), None


def samples_of_loader(loader: "BaseDataLoader") -> Iterator["Sample"]:
    """Yield the samples of the batches that an evaluation takes, (inputs, targets) or (inputs, targets, origins)."""
    from base.samples import NamedMask
    from models.export.comparison import Sample

    for inputs, targets, *rest in loader:
        origins = rest[0] if rest else [None] * len(inputs)
        for values, target, origin in zip(inputs, targets, origins, strict=True):
            if isinstance(origin, NamedMask):  # masks at their own size
                yield Sample(values, origin.geometry, origin.target)
            else:
                yield Sample(values, None, target)


def samples_of_source(trained: "Trained", source: str | None) -> Iterator["Sample"]:
    """Yield the inputs of the files that `--source` names; of photos, those of data/people if it names none.

    A file that cannot be read, or is none of which the network's input can be made, is logged and left out.

    Raises:
        DataError: There are none, or none can be used, or a file of series is damaged.
    """
    import torch

    from data_loader.images.files import read_image
    from data_loader.time_series.preprocessing import series_of_source
    from models.export.comparison import Sample
    from predictor.io.sources import PHOTO_SUFFIXES, open_source

    preprocess = trained.preprocess
    suffixes = frozenset(getattr(preprocess, "suffixes", PHOTO_SUFFIXES))
    source = source or example_photos(preprocess, suffixes)
    series = series_of_source(source, preprocess)
    named: Iterable[tuple[str, NDArray[Any]]]
    if series is not None:
        frames, failures = None, []
        named = zip(map(str, series.rows), series.series, strict=True)
    else:
        default_read = partial(read_image, in_channels=getattr(preprocess, "in_channels", None) or 3)
        frames = open_source(source, getattr(preprocess, "read", default_read), suffixes=suffixes)
        named, failures = ((frame.name, frame.image) for frame in frames), frames.failures
    count = num_logged = 0
    for name, values in named:
        try:
            inputs, geometry = trained.prepare(values)
        except DataError as error:
            if frames is None:  # all series of a file have the same variables
                raise DataError(f"Row {name} of {source}: {error}") from error
            frames.leave_out(name, error)
            continue
        # Here, not at the end: whoever takes the first samples only never gets there.
        log_left_out(failures[num_logged:])
        count, num_logged = count + 1, len(failures)
        yield Sample(torch.from_numpy(inputs), geometry)
    if failures and not count:
        raise DataError("\n".join(failures))
    log_left_out(failures[num_logged:])


def example_photos(preprocess: Any, suffixes: frozenset[str]) -> str:
    """Return the folder of photos to compare on if neither the config nor the command names any.

    Args:
        preprocess: That of the network.
        suffixes: Of the files that it reads.

    Raises:
        DataError: The network takes other inputs than photos, or there are none with these suffixes.
    """
    from data_loader.time_series.preprocessing import SeriesPreprocessing
    from predictor.io.sources import PHOTO_SUFFIXES

    if isinstance(preprocess, SeriesPreprocessing):
        raise DataError("There are no series to compare the networks on. Name a file of them: --source FILE.ts.")
    if PHOTO_SUFFIXES.isdisjoint(suffixes):
        names = " ".join(sorted(suffixes))
        raise DataError(f"There are no files ({names}) to compare the networks on. Name some: --source FOLDER.")
    # A project of one's own has no example data, and there are JPEGs only.
    if not any(file.suffix.lower() in suffixes for file in PEOPLE.rglob("*")):
        raise DataError("There are no photos to compare the networks on. Name some: --source FOLDER.")
    return str(PEOPLE)


def log_left_out(failures: Iterable[str]) -> None:
    """Log each file of the source that cannot be used."""
    for failure in failures:
        logger.warning("Not compared on: %s", failure)


def trace_network(trained: "Trained", sample: "Sample") -> "Traced":
    """Trace the network for inputs like a sample: images at the size of the config, if it is known there.

    A preprocessing of one's own may mean anything by an attribute `size`: of its inputs a sample tells the size.

    Raises:
        ConfigError: The network needs a fixed size, and the config has none, or its input is no image or series.
    """
    from data_loader.images.preprocessing import Preprocessing
    from models.export.tracing import SIDES, trace

    channels, *size = sample.inputs.shape
    if len(size) + 2 not in SIDES:
        raise ConfigError(
            f"An input of the network is {tuple(sample.inputs.shape)}. Images (channels, height, width) and series "
            "(variables, steps) can be exported. Call torch.onnx.export for this network yourself."
        )
    section = evaluation_section(trained.config)
    has_resize = "resize" in signature_of(class_and_arguments(trained.config, section, registry())[0]).parameters
    known_size: tuple[int, ...] | None = tuple(size)
    if isinstance(trained.preprocess, Preprocessing) and (has_resize or trained.preprocess.size is not None):
        known_size = trained.preprocess.size
    traced = trace(trained.model, channels, known_size or TRACED_SIZE)
    if known_size is None and traced.sides["height"].fixed:
        raise ConfigError(
            f"--size: this network is exported for one size, but {section} has no resize. Add --size H W."
        )
    return traced


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = argparse.ArgumentParser(description="Write a checkpoint as a file for other programs, and check it.")
    options.add_argument("--resume", required=True, metavar="FILE", help="a checkpoint, or a run folder")
    options.add_argument("--format", choices=["onnx", "torch"], default="onnx", help="torch is torch.export's .pt2")
    options.add_argument("--output", type=Path, required=True, metavar="FILE", help="net.onnx or net.pt2")
    options.add_argument("--size", nargs=2, type=cli.positive_int, metavar=("H", "W"), help="of the input")
    options.add_argument(
        "--source", metavar="PATH", help="photos, arrays or series to compare on; default: the data of the config"
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
        write_out(f"{found.text()}\nWritten: {in_one_line(output)} ({megabytes:.1f} MB). Use it:\n")
        use = ["--source", "PATH", "--output", "out" if found.has_masks else "table.csv"]
        command = command_line("python", "inference.py", "--model", output, *use, files=arguments.plugin)
        write_out(f"{command}\n")
    finally:
        close_logging()


if __name__ == "__main__":
    sys.exit(cli.run_command(main, parser()))
