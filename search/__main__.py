"""The command of the search: `python -m search -c config/search/minimal.json`.

The only part of `search/` outside of `search/worker/` that imports torch: it passes the name of the worker's function
to a study.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import config as configuration
from config import cli
from search.cli.compare import COMPARE, compare_parser, run_compare
from search.cli.control import CONTROLS, control_parser, run_control
from search.cli.listing import best_text
from search.cli.live import PacedBeliefs, Terminal, log_draws
from search.cli.study_commands import COMMANDS, command_parser, run_study_command
from search.cli.tensorboard import TENSORBOARD, TensorBoardRuns
from search.cli.test_run import shrunk
from search.executors.base import Executor
from search.joining.command import join_parser, run_join
from search.joining.leading import StoppedByCommand
from search.results.record import StudyRecord
from search.samplers.random import RandomSampler
from search.serve.command import SERVE, run_serve, serve_parser
from search.study.best import require_retrained
from search.study.driver import Watcher
from search.study.folders import CONFIG, read_study_config, require_place, with_present_options
from search.study.journal import Event, Journal
from search.study.settings import build_study_parts
from search.study.state import StudyState
from search.study.study import Study, build_strategy
from utils.errors import ConfigError, Interrupted
from utils.plugins import command_line
from utils.writing.text import write_out

_DRAWS_SHOWN = 8  # by --check

logger = logging.getLogger("espalier")


def search_parser() -> argparse.ArgumentParser:
    """Return the parser of a search."""
    parser = argparse.ArgumentParser(
        prog="python -m search",
        description="Search over the values that a JSON file marks.",
        epilog=f"python -m search {'|'.join([*COMMANDS, COMPARE, *CONTROLS])}|join FOLDER|serve: see --help of each.",
    )
    cli.add_config_arguments(parser)
    parser.add_argument("--resume", metavar="auto|FOLDER", help="resume the newest search of the config, or this one")
    parser.add_argument(
        "--test-run", metavar="EPOCHS,TRAIN,VALID,SAMPLES", help="try it out with few epochs, samples and candidates"
    )
    parser.add_argument("--verbose", action="store_true", help="print each draw and the shapes of each network")
    parser.add_argument(
        "--check", "--validate-only", action="store_true", help="check the space and show its first draws"
    )
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE.py", help="a file with your own classes")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def run_search(arguments: argparse.Namespace) -> None:
    """Start or resume a search, and print its winner.

    Raises:
        ConfigError: The configuration is faulty, or no candidate of its space can be trained.
        SearchError: The study cannot be continued, or no candidate could be trained, or none of the best ones again.
    """
    words = [word for word in arguments.overrides if "=" not in word]
    if words and arguments.config is None:
        known = ", ".join([*COMMANDS, COMPARE, *CONTROLS, "join", SERVE])
        raise ConfigError(f'"{words[0]}": is no command. Write one of {known}, or -c FILE to search.')
    if arguments.config is None and arguments.resume in (None, "auto"):
        raise ConfigError("no configuration is named. Write -c FILE, or --resume FOLDER of a study.")
    # torch is imported here, so that --help is fast.
    from logger.console import setup_logging
    from search.worker.launch import checked_parts, open_study

    configuration.load_plugins(arguments.plugin)
    close_logging = setup_logging(None)
    try:
        config = _config_of(arguments)
        if arguments.check:
            parts = checked_parts(config)
            require_place(config)
            is_grid = config.get("search", {}).get("study") is not None  # of so many trainings and no more
            most = min(_DRAWS_SHOWN, parts.scheduler.num_samples) if is_grid else _DRAWS_SHOWN
            for index in range(most if parts.space.has_markers else 0):
                sampler = parts.sampler or RandomSampler(parts.space)
                proposed = sampler.propose(index)
                if proposed is not None:  # a grid may have fewer
                    values = ", ".join(f"{path}={value}" for path, value in parts.space.label(proposed.drawn))
                    write_out(f"{index}: {values}\n")
            write_out("The space is good.\n")
            return
        study = open_study(config, arguments.resume, plugins=arguments.plugin, verbose=arguments.verbose)
        record = run_with_table(study, config, verbose=arguments.verbose)
        record.plugins = arguments.plugin
        report = command_line("python", "-m", "search", "report", study.folder, files=arguments.plugin)
        write_out(f"\n{best_text(record)}\nReport:  {report}\n")
        require_retrained(record)
    finally:
        close_logging()


def run_with_table(
    study: Study,
    config: Mapping[str, Any],
    *,
    verbose: bool,
    executor: Executor | None = None,
    journal: Journal | None = None,
) -> StudyRecord:
    """Run a study with a live table, and write it to TensorBoard if its config wants that.

    Args:
        study: The study.
        config: Its space.
        verbose: Whether each draw is printed.
        executor: See `Study.run`.
        journal: See `Study.run`.
    """
    num_samples = max(study.num_samples or 0, study.strategy.num_samples)
    terminal = Terminal(
        config["name"],
        num_samples,
        study.rungs,
        beliefs=PacedBeliefs(study.beliefs),
        retrained=study.strategy.retrained,
    )
    watchers: list[Watcher] = [*study.watchers, *([log_draws] if verbose else [])]
    watchers.append(terminal.watch)
    if config["trainer"].get("tensorboard", True):
        watchers.append(TensorBoardRuns(study.folder / TENSORBOARD, [study.parts.objectives[0].name]).watch)
    study.watchers = watchers
    try:
        return study.run(executor=executor, journal=journal)
    finally:
        terminal.table.close()


def run_shared(arguments: argparse.Namespace) -> None:
    """Take part in a study that several processes share.

    Raises:
        ConfigError: The config or the command line is faulty.
        SearchError: The study cannot be continued.
        Interrupted: A signal asked to stop; all is saved, and the others continue.
    """
    from logger.console import setup_logging

    def lead_study(folder: Path, executor: Executor, journal: Journal) -> None:
        """Run the study; torch is loaded only by the process that leads."""
        from search.worker.launch import open_study

        stopped: list[int] = []

        def watch(event: Event, _state: StudyState) -> None:
            if event.name == "study.command" and event.data["command"] == "stop" and event.candidate is None:
                stopped.append(1)

        config = with_present_options(configuration.load_config(str(folder / CONFIG), []), folder)
        study = open_study(config, str(folder), plugins=arguments.plugin, verbose=arguments.verbose)
        study.watchers = [watch]
        try:
            record = run_with_table(study, config, verbose=arguments.verbose, executor=executor, journal=journal)
        except Interrupted as stop:
            if stopped:
                raise StoppedByCommand(stop.signal_number) from stop
            raise
        record.plugins = arguments.plugin
        write_out(f"\n{best_text(record)}\n")
        require_retrained(record)

    def complete(config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Complete the config of a new study; only a process that names its file loads the classes for that."""
        from search.worker.launch import config_of_new_study

        return config_of_new_study(config)

    configuration.load_plugins(arguments.plugin)
    close_logging = setup_logging(None)
    try:
        run_join(arguments, lead_study, complete=complete)
    finally:
        close_logging()


def run_comparison(arguments: argparse.Namespace) -> None:
    """Compare runs; those without stored predictions are evaluated only if that is asked for.

    Raises:
        EspalierError: Anything that the user can repair.
    """

    def predict(folder: Path, split: str) -> None:
        """Evaluate a run on a split; torch is loaded only for this."""
        from test import evaluate_checkpoint, for_evaluation
        from trainer.checkpoints.resume import find_checkpoint

        path, content = find_checkpoint(str(folder), None)
        config = for_evaluation(content.get("config"), None)
        evaluate_checkpoint(path, {**content, "config": config}, split, devices=arguments.devices)

    configuration.load_plugins(arguments.plugin)
    run_compare(arguments, predict)


def _config_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the config of the space: that of a file, or of the study to resume."""
    if arguments.config is None:
        folder = Path(arguments.resume)
        read_study_config(folder)  # raises if there is none
        config = with_present_options(configuration.load_config(folder / CONFIG), folder)
        for override in cli.overrides_of(arguments):
            configuration.apply_override(config, override)
    else:
        config = configuration.load_config(arguments.config, cli.overrides_of(arguments))
    if not arguments.test_run:
        return config
    build_strategy(build_study_parts(config))  # finds the faults of values that the small search replaces
    return shrunk(config, arguments.test_run)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] == "join":
        return cli.run_command(run_shared, join_parser(), words[1:])
    if words and words[0] == SERVE:
        return cli.run_command(run_serve, serve_parser(), words[1:])
    if words and words[0] == COMPARE:
        return cli.run_command(run_comparison, compare_parser(), words[1:])
    if words and words[0] in CONTROLS:
        return cli.run_command(run_control, control_parser(words[0]), words[1:])
    if words and words[0] in COMMANDS:
        return cli.run_command(run_study_command, command_parser(words[0]), words[1:])
    return cli.run_command(run_search, search_parser(), words)


if __name__ == "__main__":
    sys.exit(main())
