"""`python -m search add|enqueue|pause|resume|stop|repair STUDY`: commands that change a study, also one that runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import config as configuration
from config.loading.load import parse_override
from search.joining.lease import is_shared
from search.study.commands import is_waiting, send_command
from search.study.folders import find_studies, read_present_config
from search.study.journal import JOURNAL, Journal, JournalDamage, cut_journal, read_events
from search.study.settings import build_study_parts
from search.study.state import StudyState
from search.study.study import Study
from utils.errors import SearchError
from utils.files import folder_lock
from utils.plugins import command_line
from utils.runs.locks import is_held
from utils.writing.text import write_out

CONTROLS = {
    "add": "Let a study try more candidates.",
    "enqueue": "Let a study try a known candidate next.",
    "pause": "Pause a study, or one of its candidates; what runs is saved at its next report.",
    "resume": "Resume what was paused.",
    "stop": "Stop a study with its state saved, or give up one of its candidates.",
    "repair": "Cut a damaged journal after its last good event.",
}


def control_parser(command: str) -> argparse.ArgumentParser:
    """Return the parser of one of the commands."""
    made = argparse.ArgumentParser(prog=f"python -m search {command}", description=CONTROLS[command])
    made.add_argument("folder", metavar="STUDY", type=Path, help="folder of the study")
    if command == "add":
        made.add_argument("num_samples", metavar="NUMBER", type=int, help="candidates to try in addition")
    elif command == "enqueue":
        made.add_argument("values", metavar="PATH=VALUE", nargs="+", help="searched values; the others are drawn")
    elif command != "repair":
        made.add_argument(
            "candidate", metavar="CANDIDATE", type=int, nargs="?", help="its number; by default the study"
        )
    made.add_argument("--plugin", action="append", default=[], metavar="FILE.py", help="a file with your own classes")
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    made.set_defaults(command=command)
    return made


def run_control(arguments: argparse.Namespace) -> None:
    """Leave a command for a study, or repair its journal.

    Raises:
        ConfigError: A value is not in the space, or the study cannot grow.
        SearchError: There is no study in the folder, or a damaged one, the candidate is not known or at its end, or no
            search runs that could be paused, resumed or stopped.
    """
    configuration.load_plugins(arguments.plugin)
    folders = find_studies(arguments.folder)
    if not folders:
        raise SearchError(f"{arguments.folder}: there is no study in it. Name a folder that a search wrote.")
    folder, command = folders[0], arguments.command
    if command == "repair":
        write_out(f"{repair(folder, arguments.plugin)}\n")
        return
    given = {name: getattr(arguments, name, None) for name in ("candidate", "num_samples", "values")}
    command_study(folder, command, **given)
    write_out(f"{_when(folder, arguments.plugin)}\n")


def command_study(
    folder: Path,
    command: str,
    *,
    candidate: int | None = None,
    num_samples: int | None = None,
    values: Sequence[str] | None = None,
    identity: str | None = None,
) -> None:
    """Leave a command for a study, after a check whether it can be obeyed.

    Args:
        folder: Folder of the study.
        command: One of `CONTROLS` but "repair".
        candidate: Of pause, resume and stop; None: the study.
        num_samples: Of add.
        values: Of enqueue: `PATH=VALUE`.
        identity: Of the command, see `send_command`; one that waits or was obeyed is not left again.

    Raises:
        ConfigError: A value is not in the space, or the study cannot grow.
        SearchError: The study is damaged, the candidate is not known or at its end, or no search runs that could be
            paused, resumed or stopped.
    """
    study = Study(folder, build_study_parts(read_present_config(folder)), worker="")
    study.restore()
    if identity is not None and (identity in study.state.obeyed or is_waiting(folder, identity)):
        return
    study.strategy.require_command(command)
    if command == "add":
        if num_samples is None or num_samples < 1:
            raise SearchError(f"add {num_samples}: must be 1 or more. Write how many more to try.")
        study.strategy.grow(study.strategy.num_samples + num_samples)  # raises if it cannot
        send_command(folder, command, identity, num_samples=num_samples)
    elif command == "enqueue":
        drawn = study.parts.space.find(dict(map(parse_override, values or ())), study.state.next_number)
        send_command(folder, command, identity, choices=drawn.as_json())
    else:
        if candidate is not None:
            _require_unended(command, candidate, study.state)
        elif not is_shared(folder) and not is_held(folder):
            raise SearchError(
                f"{command}: no search runs in {folder}, so that there is nothing to {command}. Name one that runs, or "
                "one of its candidates."
            )
        send_command(folder, command, identity, candidate=candidate)


def _when(folder: Path, plugins: Sequence[str]) -> str:
    """Return in words when a command takes effect."""
    if is_shared(folder):
        again = command_line("python", "-m", "search", "join", folder, files=plugins)
        return f"Noted. The process that leads the study obeys within a second; if none does, join it:  {again}"
    if is_held(folder):
        return "Noted. The search that runs obeys within a second, or if it trains in its own process, after its epoch."
    again = command_line("python", "-m", "search", "--resume", folder, files=plugins)
    return f"Noted. The study does not run now; continue it:  {again}"


def _require_unended(command: str, candidate: int, state: StudyState) -> None:
    """Raise if a candidate cannot change any more.

    Raises:
        SearchError: It is not known, or at its end.
    """
    if candidate not in state.candidates:
        raise SearchError(
            f"{command}: candidate {candidate} is not known. There are {len(state.candidates)}, from number 0."
        )
    status = state.candidates[candidate].record.status
    if status not in ("running", "paused"):
        raise SearchError(
            f"{command}: candidate {candidate} is {status}. Only one that is not at its end can change. Name another."
        )


def repair(folder: Path, plugins: Sequence[str] = ()) -> str:
    """Cut a damaged journal after its last good event, and return a report in words.

    Args:
        folder: Folder of the study.
        plugins: Files with the user's classes, loaded already, for the command that is printed.

    Raises:
        SearchError: A search runs there, or no event is good.
    """

    def in_use(process: str) -> SearchError:
        return SearchError(f"{folder}: process {process} is searching there. Stop it before a repair.")

    if is_shared(folder):
        raise SearchError(
            f"{folder}: several processes share this study, and one of them leads it, or died. Join it: "
            f"{command_line('python', '-m', 'search', 'join', folder, files=plugins)}; if its journal is damaged, it "
            "ends, and can be repaired."
        )
    with folder_lock(folder, in_use):
        num_good = 0
        try:
            Study(folder, build_study_parts(read_present_config(folder)), worker="").restore()
            num_good = sum(1 for _ in read_events(folder / JOURNAL))
            Journal(folder / JOURNAL).close()  # finds damage to the rest of the file
        except JournalDamage as damage:
            num_good = damage.num_good or num_good
            if not num_good:
                raise
            stored = cut_journal(folder / JOURNAL, num_good)
            return (
                f"The first {num_good} events remain; the journal as it was is in {stored}. Continue:  "
                + command_line("python", "-m", "search", "--resume", folder, files=plugins)
            )
    return f"{folder}: the journal is good. Nothing was changed."
