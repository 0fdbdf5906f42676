"""The command of the search: `python -m search -c config/search/minimal.json`.

The only part of `search/` that knows what trains: it hands the function that the workers run to a study that is given
nothing but its name.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import config as configuration
from config import cli
from search.space.outcomes import find_faults
from search.space.space import Space
from search.study import folder as study_folder
from search.study.settings import make_executor, make_plan, make_space, shrunk
from search.study.study import Plan, Study
from utils.errors import ConfigError, SearchError

WORKER = "search.worker.runner:worker"
COMMANDS = ("list", "best", "report", "export")
_SHOWN = 8  # draws that --validate-only shows

logger = logging.getLogger("espalier")


def search_parser() -> argparse.ArgumentParser:
    """The parser of a search."""
    parser = argparse.ArgumentParser(
        prog="python -m search",
        description="Search over the values that a JSON file marks.",
        epilog=f"python -m search {'|'.join(COMMANDS)} FOLDER: see what a search found; --help behind each says more.",
    )
    cli.add_config_arguments(parser)
    parser.add_argument(
        "--resume", metavar="auto|FOLDER", help="go on with the newest search of the config, or this one"
    )
    parser.add_argument(
        "--test-run", metavar="EPOCHS,TRAIN,VALID,SAMPLES", help="try it out: so many epochs, samples and candidates"
    )
    parser.add_argument("--verbose", action="store_true", help="print what is drawn, and the shapes of each network")
    parser.add_argument("--validate-only", action="store_true", help="check the space and show its first draws")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE.py", help="a file with your own classes")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def check_space(space: Space) -> None:
    """Refuse a space none of whose candidates can be trained, and tell of branches that cannot.

    Raises:
        ConfigError: The faults of all of them.
    """
    from build import check_config

    faults = find_faults(space.covering(), check_config)
    if faults:
        logger.warning("Some candidates cannot be trained and are refused when drawn:\n  %s", "\n  ".join(faults))


def run_search(arguments: argparse.Namespace) -> None:
    """Begin a search or go on with one, and say where its winner is."""
    from logger.console import setup_logging
    from search.worker.description import canonical

    if arguments.config is None and arguments.resume in (None, "auto"):
        raise ConfigError("no configuration is named. Write -c FILE, or --resume FOLDER of a study.")
    configuration.load_plugins(arguments.plugin)
    close_logging = setup_logging(None)
    try:
        config, folder = _config_and_folder(arguments)
        space = make_space(config, canonical)
        plan = make_plan(config, space)
        logger.info("%s", space.describe())
        check_space(space)
        if arguments.validate_only:
            _show_draws(space)
            return
        folder = folder or study_folder.create(config["trainer"].get("save_dir", "saved/"), config["name"], config)
        _run(arguments, config, plan, folder)
    finally:
        close_logging()


def _config_and_folder(arguments: argparse.Namespace) -> tuple[dict[str, Any], Path | None]:
    """The space, and the folder of the study to go on with."""
    overrides, resume = cli.overrides_of(arguments), arguments.resume
    if resume not in (None, "auto") and arguments.config is None:
        if overrides:
            raise ConfigError(f"{overrides[0]}: overrides change a file, and none is named. Write -c FILE, too.")
        return study_folder.read_config(Path(resume)), Path(resume)
    config = configuration.load_config(arguments.config, overrides)
    if arguments.test_run:
        config = shrunk(config, arguments.test_run)
    if resume is None:
        return config, None
    if resume == "auto":
        return config, study_folder.find(config["trainer"].get("save_dir", "saved/"), config["name"], config)
    changed = study_folder.differences(study_folder.read_config(Path(resume)), config)
    if changed:
        raise SearchError(
            f"{resume}: it searches another space than {arguments.config}: they differ in {', '.join(changed)}. A "
            "study goes on as it was begun. Undo the change, or leave --resume out."
        )
    return config, Path(resume)


def _run(arguments: argparse.Namespace, config: Mapping[str, Any], plan: Plan, folder: Path) -> None:
    from search.cli.listing import best_text
    from search.study.watching import watchers_of
    from utils.environment import capture

    logger.info("Study folder:  %s", folder)
    extras = {"plugins": [str(Path(name).resolve()) for name in arguments.plugin], "verbose": arguments.verbose}
    watchers = watchers_of(
        folder,
        config["name"],
        num_samples=plan.scheduler.num_samples,
        objective=plan.objectives[0].name,
        tensorboard=config["trainer"].get("tensorboard", True),
        verbose=arguments.verbose,
    )
    study = Study(
        folder, plan, worker=WORKER, environment=capture(), extras=extras, watchers=[w.watch for w in watchers]
    )
    try:
        record = study.run(make_executor(config))
    finally:
        for watcher in watchers:
            watcher.close()
    sys.stdout.write(f"\n{best_text(record)}\nReport:  python -m search report {folder}\n")


def _show_draws(space: Space) -> None:
    for index in range(_SHOWN if space.has_markers else 1):
        drawn = space.draw(index).drawn
        sys.stdout.write(f"{index}: {', '.join(f'{path}={value}' for path, value in drawn)}\n")
    sys.stdout.write("The space is good.\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        from search.cli import looking

        return cli.run_command(looking.run, looking.parser(words[0]), words[1:])
    return cli.run_command(run_search, search_parser(), words)


if __name__ == "__main__":
    sys.exit(main())
