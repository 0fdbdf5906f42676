"""Train what a JSON file describes: `python train.py -c config/people/quickstart.json`.

`train(config)` is the whole command as a function; `main` only parses and prints.
"""

import argparse
import copy
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import config as configuration
from build import build_loaders, build_training, registry
from config import cli
from config.checking.splits import evaluation_section, loader_section
from config.foreign import TRACKING_URI, require_named_tracking
from config.loading.load import apply_override
from config.variants import shorten_schedule
from logger.check_report import CheckReport
from utils.errors import ConfigError, each_error, fault_of
from utils.files import now_in_utc, write_json
from utils.plugins import command_line
from utils.writing.outputs import FINDINGS, Originals, require_output
from utils.writing.text import in_one_line, write_out

if TYPE_CHECKING:  # torch takes seconds to load: --help and a faulty file are answered without it
    from base import Callback
    from base.base_trainer import TrainResult
    from build import TrainingParts
    from logger.console import EarlierRecords
    from trainer.checkpoints.resume import Start

DEV_RUN_STEPS = 2
SAVE_DIR = "trainer.save_dir"
NOT_DETERMINISTIC = (
    "trainer.deterministic is false: a GPU takes the algorithms that are fastest, also those whose sums differ in the "
    "last digits each time. Equal runs, and a resumed one, then end in other bytes."
)
logger = logging.getLogger(__name__)


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse a config that names something that does not exist, or that is the space of a search.

    Raises:
        ConfigError: Every fault with its JSON path, or a missing package.
    """
    configuration.validate(config, registry())
    if config.get("visualization"):
        from logger.trackers import require_packages

        require_packages(config)


def train(
    config: dict[str, Any] | None,
    callbacks: "Sequence[Callback]" = (),
    *,
    resume: str | None = None,
    run_folder: Path | None = None,
    devices: str | None = None,
    max_validation_batches: int | None = None,
    moved: Sequence[str] = (),
) -> "TrainResult":
    """Train a config from loading the data to the result.

    Args:
        config: From `config.load_config`; it is not changed. None takes the config of the checkpoint `resume`.
        callbacks: Called in addition to those of the run folder, the progress bar and TensorBoard.
        resume: `auto`, `last`, `best`, a checkpoint or a run folder.
        run_folder: The folder of a new run, instead of one below `trainer.save_dir`; a resumed run continues in its
            folder.
        devices: E.g. `"0,1"` or `"cpu"`; by default the config's `n_gpu`.
        max_validation_batches: Validate on the first batches only.
        moved: Without a config, overrides of the checkpoint's: where its data lies now, and where results are saved.

    Raises:
        EspalierError: Anything that the user can repair.
    """
    from logger.console import earlier_records, log_end
    from trainer.checkpoints.resume import create_run_folder, lock_run_folder, restore
    from trainer.checkpoints.same_data import identify_data, require_same_data, require_same_network
    from trainer.checkpoints.saving import Checkpoints, RunRecords, stop_at_next_step
    from trainer.inspection.step_faults import explained_steps
    from trainer.runtime.devices import joined_world
    from utils.environment import capture, resource_errors

    start = starting_point(config, resume, run_folder, moved)
    options = configuration.trainer_options(start.config)
    with joined_world() as world, resource_errors(), earlier_records() as records_before:
        parts = build_training(
            start.config,
            world,
            devices=devices,
            max_validation_batches=max_validation_batches,
            has_weights=start.state is not None,
        )
        trainer, folder = parts.trainer, start.folder
        data = identify_data(parts.train_loader, parts.valid_loader)
        require_same_data(start.state, parts.config, data)
        require_same_network(start.state, parts.config)
        if folder is None and world.is_main:
            folder = create_run_folder(options["save_dir"], parts.config["name"], start.new_folder)
        trainer.run_folder = folder = Path(world.gather(str(folder))[0])  # the main process's: the clocks differ
        close_logging = begin_log(parts, folder, options, records_before, is_main=world.is_main)
        known = {"deterministic": options["deterministic"], "folder": folder.name, "started": now_in_utc()}
        # A resume compares its config with the one that was asked for.
        records = RunRecords(folder, parts.config, {**capture(), **known, "asked": start.earlier or start.config})
        saving = {key: options[key] for key in ("save_period", "save_every_steps", "save_every_minutes")}
        checkpoints = Checkpoints(folder, parts.config, **saving, world=world, data=data)
        # The checkpoints come last: they hold the state of the other callbacks after the same event.
        trainer.callbacks = [records, *trainer.callbacks, *callbacks_of(parts, options), *callbacks, checkpoints]
        try:  # the state goes into the callbacks, too, so they are there first
            restore(trainer, start)
            lock = lock_run_folder(folder if world.is_main else None)
            with (
                lock,
                stop_at_next_step(trainer),
                explained_steps(trainer, loader_section(parts.config, "train") or ""),
            ):
                result = trainer.fit()
        except BaseException as error:
            log_end(error)
            raise
        finally:
            close_logging()
        world.gather(None)  # wait until every process is here
        del parts, trainer  # the wrapped network refers to the other processes, which are left at the end of the block
    return result


def begin_log(
    parts: "TrainingParts", folder: Path, options: Mapping[str, Any], earlier: "EarlierRecords", *, is_main: bool
) -> Callable[[], None]:
    """Open the log of a run: its folder, device and sizes, then the records of before it had a folder.

    Args:
        parts: The parts of the training.
        folder: The run's folder; only the main process writes `info.log` there.
        options: The config's `trainer` section, complete.
        earlier: The records of before.
        is_main: Whether this is the main process.

    Returns:
        A function that closes it.
    """
    from logger.console import repeat_in_file, setup_logging

    close_logging = setup_logging(folder if is_main else None, options["verbosity"] if is_main else 0)
    before = earlier.taken()
    log_beginning(parts, folder)
    repeat_in_file(before, folder)
    if not options["deterministic"]:
        logger.info(NOT_DETERMINISTIC)
    return close_logging


def log_beginning(parts: "TrainingParts", folder: Path) -> None:
    """Log the folder of a run, its device and precision, and the sizes of network and data."""
    import torch

    logger.info("Run folder: %s", in_one_line(folder))
    plan = getattr(parts.trainer, "plan", None)  # a trainer of a plug-in may have none
    if plan is not None:
        device, dtype = plan.precision.device, str(plan.precision.dtype).removeprefix("torch.")
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
        layout = "channels last" if plan.precision.memory_format is torch.channels_last else "channels first"
        logger.info("Device: %s (%s), %s, %s, processes: %d.", device, name, dtype, layout, plan.world.size)
    weights = [weight.numel() for weight in parts.model.parameters()]
    learned = sum(weight.numel() for weight in parts.model.parameters() if weight.requires_grad)
    logger.info(
        "Network: %s, %s weights, of which %s learn.", parts.config["arch"]["type"], f"{sum(weights):,}", f"{learned:,}"
    )
    size = getattr(parts.train_loader.preprocessing, "size", None)
    sides = size if isinstance(size, tuple | list) else [size or "?"]  # one of your own may have one side
    shape = "x".join(map(str, [parts.spec.in_channels or "?", *sides]))
    loader = parts.train_loader
    counts = f"{loader.num_samples} to train on in {len(loader)} batches of {loader.batch_size}"
    if parts.valid_loader is not None:
        counts += f", {parts.valid_loader.num_samples} to validate on"
    logger.info("Data: %s; inputs %s, %s classes.", counts, shape, parts.spec.num_classes or "unknown")


def starting_point(
    config: dict[str, Any] | None, resume: str | None, run_folder: Path | None, moved: Sequence[str]
) -> "Start":
    """Return the config, state and folder from which a training starts; the arguments are those of `train`.

    Raises:
        ConfigError: The config has faults, or a checkpoint's config asks for more than it may.
        CheckpointError: There is no such checkpoint, or it cannot be continued.
    """
    from trainer.checkpoints.resume import resolve_start
    from trainer.checkpoints.same_data import identify_data

    if config is not None:  # before a run folder is searched: a faulty config is reported as such
        check_config(config)
    start = resolve_start(config, resume, run_folder, identify=lambda asked: identify_data(*build_loaders(asked)))
    if config is None:
        start = replace(start, config=configuration.narrowed(start.config))
        for override in moved:
            apply_override(start.config, override)
        check_config(start.config)
        require_named_tracking(start.config, moved)
        if start.folder is None and run_folder is None and not any(each.startswith(f"{SAVE_DIR}=") for each in moved):
            configuration.require_own_place(start.config, Path(resume or ""))
    return start


def callbacks_of(parts: "TrainingParts", options: Mapping[str, Any]) -> "list[Callback]":
    """Return the callbacks that the config of a run asks for, in their order."""
    from logger.callbacks import MetricsFile, ProgressBar, TensorBoardLogger
    from logger.trackers import make_trackers
    from trainer.checkpoints.saving import TimeLimit
    from utils.images.palette import of_loaders

    chosen: list[Callback] = [ProgressBar()]
    if options["tensorboard"]:
        drawn = {"images": options["pictures"], "histograms": options["histograms"]}
        spec, colors = parts.spec, of_loaders(parts.config, "palette")
        chosen.append(
            TensorBoardLogger(**drawn, class_names=spec.class_names, colors=colors, ignore_index=spec.ignore_index)
        )
    chosen.append(MetricsFile())
    if options["max_time"]:
        chosen.append(TimeLimit(options["max_time"]))
    return chosen + (make_trackers(parts.config) if parts.config.get("visualization") else [])


def run_check(config: dict[str, Any], arguments: argparse.Namespace) -> str:
    """Check a config with its data and its network, and return the report as text.

    Raises:
        ConfigError: The config has faults; the report is printed.
        DataError: Only the data have.
    """
    from check import check_run
    from logger.console import ReadingBar

    report = check_run(config, arguments.devices, is_overfit=bool(arguments.overfit), progress=ReadingBar())
    text = report.text(shutil.get_terminal_size((120, 24)).columns)
    if arguments.json:
        try:
            write_findings(report, arguments.json)
        except ConfigError:  # what was found is not lost
            write_out(f"{text}\n")
            raise
    if any(finding.is_fault for finding in report.findings):
        write_out(f"{text}\n")
        report.raise_faults()
    if report.notes:
        return f"{text}\n\nNo fault was found in what could be checked."
    return f"{text}\n\nThe configuration is good: every class was built, all data was read, and a step was tried."


def write_findings(report: CheckReport, file: str) -> None:
    """Write the findings of a check as JSON.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(file), report.as_json())
    except OSError as error:
        raise ConfigError(f"--json {file}: cannot be written, {error.strerror}. Name another file.") from error


def for_dev_run(config: Mapping[str, Any], save_dir: str) -> dict[str, Any]:
    """Return the config of one epoch of a few steps that writes below `save_dir`, and to no service."""
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    moves = shorten_schedule(changed.get("lr_scheduler"))  # all of its parts are tried
    if isinstance(changed.get("trainer"), dict):  # otherwise left as it is, for the validation to report
        steps = max(DEV_RUN_STEPS, moves + 1)
        changed["trainer"] |= {"epochs": 1, "len_epoch": steps, "save_dir": save_dir, "early_stop": None}
        arguments = changed["trainer"].get("args")
        if isinstance(arguments, dict) and "architecture_from_epoch" in arguments:
            arguments["architecture_from_epoch"] = 1
    services = changed.get("visualization")
    if isinstance(services, dict):
        for name, quiet in (("wandb", {"mode": "disabled"}), ("mlflow", {"tracking_uri": None})):
            if isinstance(services.get(name), dict):
                services[name] |= quiet
    return changed


def for_overfit(config: Mapping[str, Any], samples: int) -> dict[str, Any]:
    """Return a config that trains on the first samples without augmentation and validates on the same ones.

    Raises:
        ConfigError: The number is not positive, or the loader has no argument for it.
    """
    if samples < 1:
        raise ConfigError(f"--overfit {samples}: at least one sample is needed. Write for example --overfit 4.")
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    name = "train_loader" if changed.get("train_loader") else "data_loader"
    section = changed.get(name)
    spec: dict[str, Any] = section if isinstance(section, dict) else {"type": section} if section else {}
    arguments = spec.get("args") or {}
    if not spec or not isinstance(arguments, dict) or not isinstance(changed.get("trainer"), dict):
        return changed  # for the validation to report
    try:
        accepted = configuration.signature_of(configuration.class_and_arguments(changed, name, registry())[0])
    except ConfigError:
        return changed  # likewise
    if "samples" not in accepted.parameters and not accepted.takes_more:
        raise ConfigError(
            f"--overfit {samples}: {name}.type {spec['type']} has no argument samples, by which it would take the "
            "first ones. Add it to the class, and give indices=range(samples) to BaseDataLoader."
        )
    asked = arguments.get("batch_size", samples)
    batch_size = min(asked, samples) if isinstance(asked, int) else asked
    arguments = {
        key: value for key, value in arguments.items() if key not in ("validation_split", "folds", "drop_last")
    }
    wanted = {"samples": samples, "is_training": False, "shuffle": False, "batch_size": batch_size}
    if any(each in arguments for each in ("folder", "path", "data_dir")):
        # By itself, a loader that does not train takes the validation data of its folder.
        wanted["split"] = arguments.get("split", "train")
    arguments |= {key: value for key, value in wanted.items() if key in accepted.parameters or accepted.takes_more}
    changed.pop("data_loader", None)
    changed["train_loader"] = {**spec, "args": arguments}
    changed["valid_loader"] = copy.deepcopy(changed["train_loader"])
    changed["trainer"]["early_stop"] = None
    if isinstance(changed.get("name"), str):
        changed["name"] += "_overfit"  # a folder that is not taken for one of the config's runs
    return changed


def try_out(config: dict[str, Any], devices: str | None) -> None:
    """Train a few batches with everything that belongs to it, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as scratch:
        train(for_dev_run(config, scratch), devices=devices, max_validation_batches=DEV_RUN_STEPS)


def may_change_place(path: str) -> bool:
    """Return whether the value at a JSON path may change when a run is resumed from its folder alone."""
    from trainer.checkpoints.same_data import is_data_place

    return is_data_place(path) or path in (SAVE_DIR, TRACKING_URI)


def summary_text(result: "TrainResult", config: Mapping[str, Any], plugins: Sequence[str] = ()) -> str:
    """Return the results of a training as text, and the commands that use them, each of which runs as it is printed.

    Args:
        result: Of the training.
        config: Of the run.
        plugins: Files with the user's classes, which the commands name.
    """
    row = result.best or (result.history[-1] if result.history else {})
    values = "  ".join(f"{name} {value:.4f}" for name, value in row.items() if name not in ("epoch", "step", "lr"))
    lines = [
        f"{'Best' if result.best else 'Last'} epoch {row.get('epoch', 0)} of {result.epochs}:  {in_one_line(values)}",
        f"Run folder:  {in_one_line(result.run_folder)}",
    ]
    if result.checkpoint is not None:  # a time limit may end a run before the first one
        held_out = "valid" if any(name.startswith("val_") for name in row) else "train"
        split = [] if loader_section(config, "test") else ["--split", held_out]
        own = ["-c", result.checkpoint.parent / "config.json"] if configuration.is_refused(config) else []
        test = command_line("python", "test.py", *own, "--resume", result.checkpoint, *split, files=plugins)
        lines.append(f"Test it:     {test}")
        if can_predict(config):
            words = ["--resume", result.checkpoint, "--source", "FILE", "--output", "out"]
            lines.append(f"Use it:      {command_line('python', 'inference.py', *words, files=plugins)}")
    if config["trainer"].get("tensorboard", True):
        lines.append(f"See it:      {command_line('tensorboard', '--logdir', result.run_folder, files=())}")
    return "\n".join(lines)


def can_predict(config: Mapping[str, Any]) -> bool:
    """Return whether the loader of a config says how an input is made of an image, which inference.py needs."""
    loader_class = configuration.class_and_arguments(config, evaluation_section(config), registry())[0]
    return hasattr(loader_class, "make_preprocessing")


def search_command(arguments: argparse.Namespace) -> str:
    """Return the search of the config that the command line names, with its overrides."""
    words = ["-c", arguments.config, *cli.overrides_of(arguments)]
    return command_line("python", "-m", "search", *words, files=arguments.plugin)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = argparse.ArgumentParser(description="Train the network that a JSON file describes.")
    cli.add_config_arguments(options)
    options.add_argument("--resume", metavar="auto|last|best|FILE", help="continue a run, or fine-tune with -c")
    options.add_argument(
        "--check", "--validate-only", action="store_true", help="find every fault of config, data and network first"
    )
    options.add_argument("--json", metavar="FILE", help="with --check: write what was found to a file")
    options.add_argument("--fast-dev-run", action="store_true", help="a few batches through everything")
    options.add_argument(
        "--overfit", type=cli.positive_int, metavar="N", help="train and validate on the first N samples"
    )
    options.add_argument("--schema", action="store_true", help="print the JSON Schema of a config")
    cli.add_run_arguments(options)
    return options


def require_fitting_flags(arguments: argparse.Namespace) -> None:
    """Refuse flags that do not go together.

    Raises:
        ConfigError: Names the flag and which to leave out.
    """
    for name in ("overfit", "check", "fast_dev_run"):
        flag = f"--{name.replace('_', '-')}"
        if getattr(arguments, name) and arguments.config is None and arguments.resume is not None:
            raise ConfigError(f"{flag}: it tries out a config, and none is named. Add -c FILE.")
        if getattr(arguments, name) and arguments.resume and name != "overfit":
            raise ConfigError(f"{flag} with --resume: it tries out a config from its beginning. Leave one of them out.")
    if arguments.check and arguments.fast_dev_run:
        raise ConfigError("--check with --fast-dev-run: a check tries a step, too. Leave one of them out.")
    if arguments.json is None:
        return
    if not arguments.check:
        raise ConfigError(f"--json {arguments.json}: it holds what --check found. Add --check.")
    read = [Path(file) for file in (arguments.config, *arguments.plugin) if file]
    require_output(Path(arguments.json), "--json", FINDINGS, Originals(read))


def main(arguments: argparse.Namespace) -> None:
    """Run the command line."""
    configuration.load_plugins(arguments.plugin)
    if arguments.schema:
        write_out(configuration.schema_text(registry()))
        return
    from logger.console import setup_logging  # it loads a progress bar, which --schema and --help do not need

    close_logging = setup_logging(None)
    try:
        require_fitting_flags(arguments)
        try:
            config = cli.requested_config(arguments, may_override=may_change_place)
        except ConfigError as error:  # so that the file of an earlier check does not speak for this config
            if arguments.json:
                found = [fault_of(each, arguments.config or "") for each in each_error(error)]
                write_findings(CheckReport(found), arguments.json)
            raise
        moved = cli.overrides_of(arguments) if config is None else []
        if config is not None and not arguments.check:  # which reports the markers with all other faults
            configuration.refuse_markers(config, search_command(arguments))
        if config is not None and arguments.overfit:
            config = for_overfit(config, arguments.overfit)
        if config is not None and arguments.check:
            text = run_check(config, arguments)
        elif config is not None and arguments.fast_dev_run:
            try_out(config, arguments.devices)
            text = "Training, validation and saving all work."
        else:
            result = train(config, resume=arguments.resume, devices=arguments.devices, moved=moved)
            assert result.run_folder is not None  # a training writes its config there
            of_run = json.loads((result.run_folder / "config.json").read_text(encoding="utf-8"))
            text = f"\n{summary_text(result, of_run, arguments.plugin)}"
        write_out(f"{text}\n")
    finally:
        close_logging()


if __name__ == "__main__":
    sys.exit(cli.run_command(main, parser()))
