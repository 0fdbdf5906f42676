"""Train what a JSON file describes: `python train.py -c config/people/quickstart.json`.

`train(config)` is the whole command as a function; `main` only parses and reports.
"""

import copy
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import build as assemble
import config as configuration
from config import cli
from config import variants as trial
from config.variants import without_pretrained_weights
from utils.errors import ConfigError

if TYPE_CHECKING:  # torch takes seconds to load: --help and a faulty file are answered without it
    import argparse

    from base import BaseTrainer, Callback
    from base.base_trainer import TrainResult
    from trainer.checkpoints.resume import Start
    from trainer.runtime.distributed import World

logger = logging.getLogger("espalier")


def registry() -> dict[str, Any]:
    """Everything that a config may name."""
    import data_loader
    import models
    import trainer
    from search.study import settings

    return {**models.SECTIONS, **data_loader.SECTIONS, **trainer.SECTIONS, **settings.REGISTRY}


def check(config: dict[str, Any]) -> None:
    """Refuse a config that names what is not there, or that is the space of a search.

    Raises:
        ConfigError: Every fault with its JSON path, or a package that is missing.
    """
    configuration.refuse_markers(config)
    configuration.validate(config, registry())
    if config.get("visualization"):
        from logger.trackers.tracker import require_packages

        require_packages(config)


def prepare(
    config: dict[str, Any],
    world: "World",
    *,
    devices: str | None = None,
    max_validation_batches: int | None = None,
    has_weights: bool = False,
) -> "BaseTrainer":
    """Build the trainer of a checked config; nothing is written to disk.

    Args:
        config: Completed here: run-time values of the network are written into it.
        world: The processes that share the work.
        devices: From the command line, e.g. `"0,1"` or `"cpu"`; the config's `n_gpu` where not given.
        max_validation_batches: Validate on the first batches only.
        has_weights: All weights will come from a checkpoint: none need be fetched for the network.
    """
    from trainer.runtime import distributed, setup

    names, seed, options = registry(), config.get("seed", 0), configuration.trainer_options(config)
    targets = distributed.choose_devices(config.get("n_gpu"), devices)
    plan = setup.plan(options, setup.precision(options, targets[0]), world, max_validation_batches)
    setup.seed_run(seed, targets[0])
    train_loader, valid_loader = assemble.build_training_loaders(config, names)
    for loader in filter(None, (train_loader, valid_loader)):
        loader.is_training = loader is train_loader
        loader.shard(world.rank, world.size)
        loader.prepare()
    values = assemble.training_values(config, train_loader, names)
    model = assemble.build_model(without_pretrained_weights(config) if has_weights else config, names, values)
    config.update(assemble.resolved(config, names, values))
    model = model.to(plan.precision.device, memory_format=plan.precision.memory_format)
    params = setup.optimizer_groups(model, config["optimizer"])
    optimizer = configuration.instantiate(config, "optimizer", names, runtime={"params": params})

    def build_scheduler(path: str, defaults: Mapping[str, Any]) -> Any:
        return configuration.instantiate(config, path, names, runtime={"optimizer": optimizer}, defaults=defaults)

    schedule = setup.schedule(config.get("lr_scheduler"), optimizer, build_scheduler, plan, len(train_loader))
    criterion = assemble.build_criterion(config, names, values, model).to(plan.precision.device)
    trainer_class, arguments = configuration.class_and_arguments({"trainer": options}, "trainer", names)
    trainer: BaseTrainer = trainer_class(
        distributed.spread(setup.equip(model, options, world, plan.precision), targets, world),
        optimizer,
        criterion=criterion,
        train_loader=train_loader,
        valid_loader=valid_loader,
        metrics=assemble.build_metrics(config, names, values),
        plan=plan,
        lr_scheduler=schedule,
        **arguments,
    )
    trainer.monitor.check(trainer.result_names())
    setup.seed_loop(seed, world)
    return trainer


def train(
    config: dict[str, Any] | None,
    callbacks: "Sequence[Callback]" = (),
    *,
    resume: str | None = None,
    run_folder: Path | None = None,
    devices: str | None = None,
    max_validation_batches: int | None = None,
) -> "TrainResult":
    """Train a config from load to result.

    Args:
        config: From `config.load_config`; None takes the config of the checkpoint `resume`.
        callbacks: Called beside those of the run folder, the progress bar and TensorBoard.
        resume: `auto`, `last`, `best`, a checkpoint or a run folder.
        run_folder: Where a run that begins is kept, in the place of a new folder below `trainer.save_dir`; one that
            goes on stays in its own.
        devices: E.g. `"0,1"` or `"cpu"`; the config's `n_gpu` where not given.
        max_validation_batches: Validate on the first batches only.

    Raises:
        EspalierError: Anything that is the user's to mend.
    """
    from trainer.checkpoints.resume import resolve_start
    from trainer.runtime.distributed import join_world, leave_world

    config = copy.deepcopy(config)  # run-time values are written into it
    if config is not None:
        check(config)
    start = resolve_start(config, resume, run_folder)
    if config is None:
        check(start.config)
    world = join_world()
    try:
        limits: dict[str, Any] = {"devices": devices, "max_validation_batches": max_validation_batches}
        result = _prepare_and_run(start, world, callbacks, limits)
        world.wait()
    finally:
        leave_world()
    return result


def _prepare_and_run(
    start: "Start", world: "World", callbacks: "Sequence[Callback]", limits: dict[str, Any]
) -> "TrainResult":
    """Build and train; the trainer, which holds on to the other processes, is gone when this returns."""
    from trainer.runtime.setup import user_errors

    with user_errors():
        trainer = prepare(start.config, world, has_weights=start.state is not None, **limits)
        return _run(trainer, start, world, callbacks)


def _run(trainer: "BaseTrainer", start: "Start", world: "World", callbacks: "Sequence[Callback]") -> "TrainResult":
    """Train in a run folder, new or gone on with."""
    from logger.console import setup_logging
    from logger.metrics_file import MetricsFile
    from logger.progress import ProgressBar
    from logger.tensorboard import TensorBoardLogger
    from logger.trackers.tracker import make_trackers
    from trainer.checkpoints.checkpoint import Checkpoints
    from trainer.checkpoints.resume import restore
    from trainer.checkpoints.run_folder import RunRecords, create_run_folder, held
    from trainer.runtime.stopping import TimeLimit, stop_at_next_step
    from utils.environment import capture

    config, options = start.config, configuration.trainer_options(start.config)
    folder = start.folder
    if folder is None and world.is_main:
        folder = create_run_folder(options["save_dir"], config["name"], start.new_folder)
    trainer.run_folder = folder = Path(world.from_main(str(folder)))
    close_logging = setup_logging(folder if world.is_main else None, options["verbosity"] if world.is_main else 0)
    saving = {key: options[key] for key in ("save_period", "save_every_steps", "save_every_minutes")}
    trainer.callbacks = [
        RunRecords(folder, config, {**capture(), "asked": start.asked}),
        ProgressBar(),
        *(
            [TensorBoardLogger(images=options["pictures"], histograms=options["histograms"])]
            if options["tensorboard"]
            else []
        ),
        MetricsFile(),
        *([TimeLimit(options["max_time"])] if options["max_time"] else []),
        *(make_trackers(config) if config.get("visualization") else []),
        *callbacks,
        Checkpoints(folder, config, **saving, world=world),
    ]
    try:
        restore(trainer, start)
        with held(folder if world.is_main else None), stop_at_next_step(trainer):
            return trainer.fit()
    finally:
        close_logging()


def dry_run(config: dict[str, Any], devices: str | None) -> str:
    """Check the config and build everything it names, its data included, writing nothing: `--validate-only`.

    Returns:
        The summary of the network.
    """
    from base import BaseModel
    from trainer.runtime.distributed import World, unwrap

    check(config)
    trainer = prepare(config, World(), devices=devices)
    model = unwrap(trainer.model)
    loader = getattr(trainer, "train_loader", None)
    size = getattr(getattr(loader, "preprocessing", None), "size", None)
    return model.summary(size) if size is not None and isinstance(model, BaseModel) else str(model)


def report(result: "TrainResult") -> str:
    """What came of a training and what to do next."""
    row = result.best or (result.history[-1] if result.history else {})
    values = "  ".join(f"{name} {value:.4f}" for name, value in row.items() if name not in ("epoch", "step", "lr"))
    lines = [
        f"{'Best' if result.best else 'Last'} epoch {row.get('epoch', 0)} of {result.epochs}:  {values}",
        f"Run folder:  {result.run_folder}",
        f"Test it:     python test.py --resume {result.checkpoint}",
        f"Use it:      python inference.py --resume {result.checkpoint} --source FILE --output out",
        f"See it:      tensorboard --logdir {result.run_folder}",
    ]
    return "\n".join(lines)


def try_out(config: dict[str, Any], devices: str | None) -> None:
    """A few batches through everything, in a folder that is gone afterwards: `--fast-dev-run`."""
    with tempfile.TemporaryDirectory() as scratch:
        train(trial.for_dev_run(config, scratch), devices=devices, max_validation_batches=trial.DEV_RUN_STEPS)


def main(arguments: "argparse.Namespace") -> None:
    """Run the command line."""
    configuration.load_plugins(arguments.plugin)
    if arguments.schema:
        sys.stdout.write(configuration.schema_text(registry()))
        return
    from logger.console import setup_logging

    close_logging = setup_logging(None)
    try:
        sys.stdout.write(_command(arguments))
    finally:
        close_logging()


def _command(arguments: "argparse.Namespace") -> str:
    """What the command line asks for; the text to end with."""
    config = cli.config_of(arguments)
    if config is None:
        for flag in ("overfit", "validate_only", "fast_dev_run"):
            if getattr(arguments, flag):
                raise ConfigError(f"--{flag.replace('_', '-')}: it tries out a config, and none is named. Add -c FILE.")
    elif arguments.overfit:
        config = trial.for_overfit(config, arguments.overfit)
    tried_out = [flag for flag in ("validate_only", "fast_dev_run") if getattr(arguments, flag)]
    if tried_out and arguments.resume:
        raise ConfigError(
            f"--{tried_out[0].replace('_', '-')} with --resume: it tries out a config from its beginning. "
            "Leave one of them out."
        )
    if config is not None and arguments.validate_only:
        summary = dry_run(config, arguments.devices)
        return f"{summary}\nThe configuration is good: every class was built and all data was found.\n"
    if config is not None and arguments.fast_dev_run:
        try_out(config, arguments.devices)
        return "Training, validation and saving all work.\n"
    result = train(config, resume=arguments.resume, devices=arguments.devices)
    return f"\n{report(result)}\n"


if __name__ == "__main__":
    sys.exit(cli.run_command(main, cli.train_parser()))
