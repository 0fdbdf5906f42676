"""`python -m search list|best|report|export FOLDER`: results of a search, while it runs or afterwards."""

import argparse
import shlex
import sys
from pathlib import Path

from search.cli.listing import best_text, list_text
from search.results.record import StudyRecord
from search.study.folders import find_studies, read_study_config
from search.study.journal import JOURNAL, read_events
from search.study.settings import build_study_parts
from search.study.study import read
from utils.errors import ConfigError, SearchError

REPORT = "report.html"
COMMANDS = {
    "list": "List the studies in a folder and below it.",
    "best": "Show the winner of a study, and the commands that use it.",
    "report": "Write a study as one HTML page that needs no network.",
    "export": "Write a study for other programs.",
}


def command_parser(command: str) -> argparse.ArgumentParser:
    """Return the parser of one of the commands."""
    made = argparse.ArgumentParser(prog=f"python -m search {command}", description=COMMANDS[command])
    made.add_argument("folder", metavar="FOLDER", nargs="?" if command == "list" else None, default="saved", type=Path)
    if command == "report":
        made.add_argument("--output", type=Path, metavar="FILE.html", help=f"by default {REPORT} in the study's folder")
    if command == "export":
        made.add_argument("--csv", type=Path, metavar="FILE.csv", help="a row per candidate; a second file of curves")
        made.add_argument("--optuna", metavar="sqlite:///FILE.db", help="a study for optuna-dashboard")
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    made.set_defaults(command=command)
    return made


def run_study_command(arguments: argparse.Namespace) -> None:
    """Run one of the commands on the study in a folder, or on the newest one below it.

    Raises:
        ConfigError: `export` without a file to write.
        SearchError: There is no study in the folder, or a damaged one, or a package is missing.
    """
    folders = find_studies(arguments.folder)
    if not folders:
        raise SearchError(
            f"{arguments.folder}: there is no study in it or below it. Name a folder that a search wrote."
        )
    if arguments.command == "list":
        sys.stdout.write(f"{list_text([read_study(folder) for folder in folders])}\n")
        return
    study = read_study(folders[0])
    if arguments.command == "best":
        sys.stdout.write(f"{best_text(study)}\n")
    elif arguments.command == "report":
        from search.report.page import write_report  # jinja2 is needed only here

        path = arguments.output or Path(study.folder) / REPORT
        write_report(study, path)
        sys.stdout.write(f"Report:  {path}\n")
    else:
        from search.cli.export import export_csv, export_optuna

        if arguments.csv is None and arguments.optuna is None:
            raise ConfigError("export: neither --csv nor --optuna is given. Say which, e.g. --csv candidates.csv.")
        if arguments.csv is not None:
            reports = export_csv(study, arguments.csv)
            sys.stdout.write(f"Written:  {arguments.csv}, a row per candidate, and {reports}, a row per epoch\n")
        if arguments.optuna is not None:
            export_optuna(study, arguments.optuna)
            sys.stdout.write(
                f"Written:  {arguments.optuna}. See it:  optuna-dashboard {shlex.quote(arguments.optuna)}\n"
            )


def read_study(folder: Path) -> StudyRecord:
    """Read the present state of a study.

    Raises:
        SearchError: There is no study in the folder, or a damaged one.
    """
    config = read_study_config(folder)
    study = read(folder, build_study_parts(config))
    # The command line that started the study is in the first event of its first session.
    started = argparse.ArgumentParser(add_help=False)
    started.add_argument("--plugin", action="append", default=[])
    for event in (each for each in read_events(folder / JOURNAL) if each.name == "study.begin"):
        study.plugins = started.parse_known_args(event.data.get("environment", {}).get("command", []))[0].plugin
        break
    return study
