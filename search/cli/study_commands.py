"""`python -m search list|best|report|export FOLDER`: results of a search, while it runs or afterwards."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import config as configuration
from search.cli.listing import best_text, list_text
from search.joining.published import journal_to_read
from search.results.record import StudyRecord
from search.study.folders import CONFIG, find_studies, read_present_config
from search.study.journal import read_events
from search.study.settings import build_study_parts
from search.study.study import read
from utils.errors import ConfigError, EspalierError, SearchError
from utils.writing.outputs import CANDIDATES, GENOTYPE, PAGE, require_database, require_output, writing
from utils.writing.text import in_one_line, shell_word, write_out

REPORT = "report.html"
COMMANDS = {
    "list": "List the studies in a folder and below it.",
    "best": "Show the winner of a study, and the commands that use it.",
    "report": "Write a study, or several side by side, as one HTML page that needs no network.",
    "export": "Write a study for other programs.",
}
_HOW_MANY = {"list": "?", "report": "+"}  # folders; one for the other commands


def command_parser(command: str) -> argparse.ArgumentParser:
    """Return the parser of one of the commands."""
    made = argparse.ArgumentParser(prog=f"python -m search {command}", description=COMMANDS[command])
    made.add_argument("folder", metavar="FOLDER", nargs=_HOW_MANY.get(command), default="saved", type=Path)
    if command == "report":
        made.add_argument("--output", type=Path, metavar="FILE.html", help=f"by default {REPORT} in the study's folder")
    if command == "export":
        made.add_argument("--csv", type=Path, metavar="FILE.csv", help="a row per candidate; a second file of curves")
        made.add_argument("--optuna", metavar="sqlite:///FILE.db", help="a study for optuna-dashboard")
        made.add_argument("--genotype", type=Path, metavar="FILE.json", help="the genotype of a supernet")
        made.add_argument("--candidate", type=int, metavar="N", help="number of the supernet; by default the winner")
        made.add_argument(
            "--epoch", type=int, metavar="N", help="decode it after this epoch; by default that of the study"
        )
    made.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE.py",
        help="a file with your own classes, as for the search",
    )
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    made.set_defaults(command=command)
    return made


def run_study_command(arguments: argparse.Namespace) -> None:
    """Run one of the commands on the study in a folder, or on the newest one below it.

    Raises:
        ConfigError: `export` or a comparison without a file to write, or with a file of a study.
        SearchError: There is no study in the folder, or a damaged one, or a package is missing.
    """
    configuration.load_plugins(arguments.plugin)
    if arguments.command == "list":
        write_out(f"{_list_text(arguments.folder, arguments.plugin)}\n")
        return
    folders = arguments.folder if arguments.command == "report" else [arguments.folder]
    with_beliefs = arguments.command == "report" and len(folders) == 1
    studies = [read_study(_studies_in(each)[0], arguments.plugin, with_beliefs=with_beliefs) for each in folders]
    if arguments.command == "best":
        write_out(f"{best_text(studies[0])}\n")
    elif arguments.command == "report":
        _write_report(studies, arguments.output)
    elif arguments.genotype is not None:
        _export_genotype(studies[0], arguments)
    elif arguments.epoch is not None or arguments.candidate is not None:
        raise ConfigError("export: --candidate and --epoch say which genotype is written. Add --genotype FILE.json.")
    else:
        _export(studies[0], arguments.csv, arguments.optuna)


def _studies_in(parent: Path) -> list[Path]:
    """Return the studies in a folder, newest first; raise if there is none."""
    folders = find_studies(parent)
    if not folders:
        raise SearchError(f"{parent}: there is no study in it or below it. Name a folder that a search wrote.")
    return folders


def _list_text(parent: Path, plugins: Sequence[str]) -> str:
    """Return a line per study, and one for each study that cannot be read; raise if none can."""
    studies, faults = [], []
    for folder in _studies_in(parent):
        try:
            studies.append(read_study(folder, plugins))
        except (EspalierError, OSError) as error:
            faults.append((folder, error))
    if not studies:
        raise faults[0][1]
    lines = [
        in_one_line(f"Not shown: {folder}: {' '.join(str(error).removeprefix(f'{folder}: ').split())}")
        for folder, error in faults
    ]
    return "\n".join([list_text(studies), *lines])


def _write_report(studies: Sequence[StudyRecord], output: Path | None) -> None:
    """Write the page of a study, or the comparison of several."""
    from search.comparison.studies import runs_of_studies
    from search.report import write_comparison, write_report  # jinja2 is needed only here

    if len(studies) > 1 and output is None:
        raise ConfigError("report: several studies are compared in one file. Name it, e.g. --output compare.html.")
    path = output or Path(studies[0].folder) / REPORT
    require_output(path, "--output", PAGE)
    with writing(path, "--output"):
        if len(studies) > 1:
            write_comparison(runs_of_studies(studies), studies, path)
        else:
            write_report(studies[0], path)
    write_out(f"Report:  {in_one_line(path)}\n")


def _export_genotype(study: StudyRecord, arguments: argparse.Namespace) -> None:
    """Write the genotype of a supernet as JSON."""
    from search.cli.export import export_genotype

    path = arguments.genotype
    if arguments.csv is not None or arguments.optuna is not None:
        raise ConfigError("export: --genotype is written by itself. Leave --csv and --optuna out.")
    require_output(path, "--genotype", GENOTYPE)
    if path.name == CONFIG:
        raise ConfigError(
            f"--genotype {path}: a study and each of its runs have a file of this name. Name another one."
        )
    with writing(path, "--genotype"):
        text = export_genotype(study, path, candidate=arguments.candidate, epoch=arguments.epoch)
    written = in_one_line(f"Written:  {path}, {text}. Use it:")
    write_out(f"{written}  arch.args.genotype={shell_word(path)}\n")


def _export(study: StudyRecord, csv: Path | None, url: str | None) -> None:
    """Write a study as CSV, as a study of Optuna, or both."""
    from search.cli.export import (
        export_csv,
        export_optuna,
        export_predictions,
        predictions_path,
        reports_path,
        sqlite_path,
    )

    if csv is None and url is None:
        raise ConfigError("export: neither --csv nor --optuna is given. Say which, e.g. --csv candidates.csv.")
    # All outputs are checked before the first is written.
    if csv is not None:
        for path in (csv, reports_path(csv), predictions_path(csv)):
            require_output(path, "--csv", CANDIDATES)
    database = sqlite_path(url) if url is not None else None
    if url is not None and url.startswith("sqlite") and database is None:
        raise ConfigError(f"--optuna {url}: a storage in memory is lost at once. Write it as sqlite:///FILE.")
    if database is not None:
        require_database(database, "--optuna")
    if csv is not None:
        with writing(csv, "--csv"):
            reports, predictions = export_csv(study, csv), export_predictions(study, csv)
        text = f"Written:  {csv}, a row per candidate, and {reports}, a row per epoch"
        write_out(f"{in_one_line(text)}\n")
        if predictions is not None:
            write_out(f"Written:  {in_one_line(predictions)}, a row per predicted cell\n")
    if url is not None:
        export_optuna(study, url)
        write_out(f"Written:  {in_one_line(url)}. See it:  optuna-dashboard {shell_word(url)}\n")


def read_study(folder: Path, plugins: Sequence[str] = (), *, with_beliefs: bool = False) -> StudyRecord:
    """Read the present state of a study.

    Args:
        folder: Its folder.
        plugins: Files with the user's classes, loaded already. Those that the journal names are not loaded: a study
            may come from somebody else.
        with_beliefs: See `Study.record`.

    Raises:
        ConfigError: Its config names a class that is not known.
        SearchError: There is no study in the folder, or a damaged one.
    """
    try:
        study = read(folder, build_study_parts(read_present_config(folder)), with_beliefs=with_beliefs)
    except ConfigError as error:
        missing = [name for name in _plugins_of(folder) if Path(name).stem not in {Path(each).stem for each in plugins}]
        if not missing:
            raise
        named = " ".join(f"--plugin {shell_word(name)}" for name in missing)
        raise ConfigError(f"{error} The search was started with {named}. Name that here, too.") from error
    study.plugins = list(plugins) or _plugins_of(folder)
    return study


def _plugins_of(folder: Path) -> list[str]:
    """Return the plug-ins on the command line of the newest session that named any, whose options are those to read."""
    started = argparse.ArgumentParser(add_help=False)
    started.add_argument("--plugin", action="append", default=[])
    plugins: list[str] = []
    for event in read_events(journal_to_read(folder)):
        if event.name == "study.begin":
            command = event.data.get("environment", {}).get("command", [])
            plugins = started.parse_known_args(command)[0].plugin or plugins
    return plugins
