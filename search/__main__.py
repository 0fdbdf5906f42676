"""The command of the search: `python -m search -c config/search/minimal.json`.

The only part of `search/` outside of `search/worker/` that imports torch: it passes the name of the worker's function
to a study.
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import config as configuration
from config import cli
from search.cli.listing import best_text, plugin_options
from search.cli.live import Terminal, log_draws
from search.cli.study_commands import COMMANDS, command_parser, run_study_command
from search.cli.tensorboard import TENSORBOARD, TensorBoardRuns
from search.study.driver import Watcher
from search.study.folders import changed_keys, create_study_folder, find_studies, read_study_config
from search.study.settings import build_study_parts, shrunk
from search.study.study import Study
from utils.errors import ConfigError, SearchError

WORKER = "search.worker.runner:worker"
_DRAWS_SHOWN = 8  # by --check

logger = logging.getLogger("espalier")


def search_parser() -> argparse.ArgumentParser:
    """Return the parser of a search."""
    parser = argparse.ArgumentParser(
        prog="python -m search",
        description="Search over the values that a JSON file marks.",
        epilog=f"python -m search {'|'.join(COMMANDS)} FOLDER: the results of a search; each has its --help.",
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
        SearchError: The study cannot be continued, or no candidate could be trained.
    """
    if arguments.config is None and arguments.resume in (None, "auto"):
        raise ConfigError("no configuration is named. Write -c FILE, or --resume FOLDER of a study.")
    # torch is imported here, so that --help is fast.
    from logger.console import setup_logging
    from search.worker.candidate import canonical
    from train import check_config
    from utils.environment import capture

    configuration.load_plugins(arguments.plugin)
    close_logging = setup_logging(None)
    try:
        config, folder = _config_and_folder(arguments)
        parts = build_study_parts(config, canonical)
        space = parts.space
        logger.info("%s", space.describe())
        # Candidates that between them contain every branch of every choice; raises if all of them are faulty.
        faults = space.find_faults(check_config)
        if faults:
            logger.warning("Some candidates cannot be trained and are refused when drawn:\n  %s", "\n  ".join(faults))
        if arguments.check:
            for index in range(_DRAWS_SHOWN if space.has_markers else 1):
                drawn = space.draw(index).drawn
                sys.stdout.write(f"{index}: {', '.join(f'{path}={value}' for path, value in drawn)}\n")
            sys.stdout.write("The space is good.\n")
            return

        folder = folder or create_study_folder(config["trainer"].get("save_dir", "saved/"), config["name"], config)
        logger.info("Study folder:  %s", folder)
        terminal = Terminal(config["name"], parts.scheduler.num_samples)
        watchers: list[Watcher] = [log_draws] if arguments.verbose else []
        watchers.append(terminal.watch)
        if config["trainer"].get("tensorboard", True):
            watchers.append(TensorBoardRuns(folder / TENSORBOARD, [parts.objectives[0].name]).watch)
        study = Study(
            folder,
            parts,
            worker=WORKER,
            environment=capture(),
            extras={"plugins": [str(Path(name).resolve()) for name in arguments.plugin], "verbose": arguments.verbose},
            watchers=watchers,
        )
        try:
            record = study.run()
        finally:
            terminal.table.close()
        record.plugins = arguments.plugin
        report = shlex.join(["python", "-m", "search", "report", str(folder), *plugin_options(arguments.plugin)])
        sys.stdout.write(f"\n{best_text(record)}\nReport:  {report}\n")
    finally:
        close_logging()


def _config_and_folder(arguments: argparse.Namespace) -> tuple[dict[str, Any], Path | None]:
    """Return the config of the space, and the folder of the study to resume, if there is one."""
    overrides, resume = cli.overrides_of(arguments), arguments.resume
    if resume not in (None, "auto") and arguments.config is None:
        if overrides:
            raise ConfigError(f"{overrides[0]}: overrides change a file, and none is named. Write -c FILE, too.")
        return read_study_config(Path(resume)), Path(resume)
    config = configuration.load_config(arguments.config, overrides)
    if arguments.test_run:
        config = shrunk(config, arguments.test_run)
    if resume is None:
        return config, None
    if resume == "auto":
        # The newest study of the same space, if there is one.
        folders = find_studies(Path(config["trainer"].get("save_dir", "saved/")) / config["name"])
        return config, next((each for each in folders if not changed_keys(read_study_config(each), config)), None)
    changed = changed_keys(read_study_config(Path(resume)), config)
    if changed:
        raise SearchError(
            f"{resume}: it searches another space than {arguments.config}: they differ in {', '.join(changed)}. A "
            "study is resumed with the space that it started with. Undo the change, or leave --resume out."
        )
    return config, Path(resume)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        return cli.run_command(run_study_command, command_parser(words[0]), words[1:])
    return cli.run_command(run_search, search_parser(), words)


if __name__ == "__main__":
    sys.exit(main())
