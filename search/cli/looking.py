"""`python -m search list|best|report|export FOLDER`: see what a search found, while it runs or afterwards."""

import argparse
import sys
from pathlib import Path

from search.results.record import StudyRecord
from search.study import folder as study_folder
from search.study.settings import make_plan, make_space
from search.study.study import read
from utils.errors import ConfigError, SearchError

REPORT = "report.html"


def parser(command: str) -> argparse.ArgumentParser:
    """The parser of one of the commands."""
    made = argparse.ArgumentParser(prog=f"python -m search {command}", description=_DESCRIPTIONS[command])
    made.add_argument("folder", metavar="FOLDER", nargs="?" if command == "list" else None, default="saved", type=Path)
    if command == "report":
        made.add_argument("--output", type=Path, metavar="FILE.html", help=f"by default {REPORT} in the study's folder")
    if command == "export":
        made.add_argument("--csv", type=Path, metavar="FILE.csv", help="a row per candidate; a second file of curves")
        made.add_argument("--optuna", metavar="sqlite:///FILE.db", help="a study for optuna-dashboard")
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    made.set_defaults(command=command)
    return made


def run(arguments: argparse.Namespace) -> None:
    """Do what one of the commands says."""
    if arguments.command == "list":
        from search.cli.listing import list_text

        sys.stdout.write(f"{list_text([read_study(folder) for folder in _studies(arguments.folder)])}\n")
        return
    study = read_study(_newest(arguments.folder))
    _COMMANDS[arguments.command](arguments, study)


def read_study(folder: Path) -> StudyRecord:
    """A study as it stands.

    Raises:
        SearchError: It is no study, or a damaged one.
    """
    config = study_folder.read_config(folder)
    return read(folder, make_plan(config, make_space(config)))


def _best(_arguments: argparse.Namespace, study: StudyRecord) -> None:
    from search.cli.listing import best_text

    sys.stdout.write(f"{best_text(study)}\n")


def _report(arguments: argparse.Namespace, study: StudyRecord) -> None:
    from search.report.page import write_report

    path = arguments.output or Path(study.folder) / REPORT
    write_report(study, path)
    sys.stdout.write(f"Report:  {path}\n")


def _export(arguments: argparse.Namespace, study: StudyRecord) -> None:
    from search.cli.export import export_csv, export_optuna

    if arguments.csv is None and arguments.optuna is None:
        raise ConfigError("export: neither --csv nor --optuna is given. Say what to write, e.g. --csv candidates.csv.")
    if arguments.csv is not None:
        reports = export_csv(study, arguments.csv)
        sys.stdout.write(f"Written:  {arguments.csv}, a row per candidate, and {reports}, a row per epoch\n")
    if arguments.optuna is not None:
        export_optuna(study, arguments.optuna)
        sys.stdout.write(f"Written:  {arguments.optuna}; see it with optuna-dashboard {arguments.optuna}\n")


def _studies(parent: Path) -> list[Path]:
    found = study_folder.studies(parent)
    if not found:
        raise SearchError(f"{parent}: there is no study in it or below it. Name a folder that a search wrote.")
    return found


def _newest(folder: Path) -> Path:
    """The study in a folder, or the newest one below it."""
    return _studies(folder)[0]


_DESCRIPTIONS = {
    "list": "The studies in a folder and below it.",
    "best": "The winner of a study, and what to do with it.",
    "report": "Write a study as one HTML page that needs no network.",
    "export": "Write a study for other programs.",
}
_COMMANDS = {"best": _best, "report": _report, "export": _export}
