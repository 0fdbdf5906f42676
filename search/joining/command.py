"""`python -m search join STUDY`: one of any number of processes, e.g. of an array job, that work on one study."""

import argparse
import json
import logging
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import config as configuration
from config import cli
from config.loading.load import apply_override
from config.objects import instantiate
from search.executors.base import Executor
from search.executors.processes import Processes
from search.executors.ray_cluster import RayCluster
from search.executors.serial import Serial
from search.executors.table import TableExecutor
from search.joining.leading import StoppedByCommand, lead
from search.joining.lease import Lease, LeaseLost, LeaseView, LeaseWatcher
from search.joining.member import LeftStudy, Member
from search.joining.timing import Timing
from search.registry import REGISTRY
from search.study.folders import (
    CONFIG,
    CompleteConfig,
    as_in_study,
    changes,
    differences,
    read_present_config,
    read_study_config,
    with_present_options,
)
from search.study.journal import JOURNAL, Journal, create_journal
from utils.errors import ConfigError, Interrupted, SearchError
from utils.plugins import command_line
from utils.writing.text import in_one_line, shell_word

logger = logging.getLogger("espalier")

LeadStudy = Callable[[Path, Executor, Journal], None]
WORKER = "search.worker.runner:worker"  # as in search.worker.launch, which loads torch
PROGRAM = (sys.executable, "-m", "search", "join")
_MOST_LEADERS_WITHOUT_CLAIM = 3
_SECONDS_TO_LEAVE = 30.0


def join_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m search join",
        usage="python -m search join STUDY | -c FILE --study STUDY [path=value ...]",
        description="Work on a study together with other processes, on this machine and on others that share its "
        "folder. One of them leads; if it dies, another one does.",
    )
    cli.add_config_arguments(parser)
    parser.add_argument("--study", metavar="STUDY", help="folder of the study; with -c, the first process creates it")
    parser.add_argument("--lead", action="store_true", help="only lead: host no workers")
    parser.add_argument(
        "--patience",
        type=float,
        default=Timing.patience,
        metavar="SECONDS",
        help="without a sign of life after which another process is taken for dead (default %(default)g)",
    )
    parser.add_argument("--verbose", action="store_true", help="print each draw and the shapes of each network")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE.py", help="a file with your own classes")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--claim", type=int, help=argparse.SUPPRESS)  # of a process that leads for a member
    return parser


def run_join(
    arguments: argparse.Namespace,
    lead_study: LeadStudy,
    *,
    worker: str = WORKER,
    program: Sequence[str] = PROGRAM,
    complete: CompleteConfig = dict,
) -> None:
    """Take part in a study until it is done.

    Args:
        arguments: The command line; its plug-ins are loaded.
        lead_study: Runs the study in a folder on an executor, with an open journal.
        worker: The worker's context manager; see `Executor`.
        program: The words by which a process is started that runs this function.
        complete: Completes the config of a new study.

    Raises:
        ConfigError: The config or the command line is faulty.
        SearchError: The study cannot be continued, or is another one than that of the config.
        LeftStudy: A signal asked to stop; all is saved, and the others continue.
    """
    study = _study_of(arguments, complete)
    if not 1 <= arguments.patience <= 3600:
        raise ConfigError(
            f"--patience {arguments.patience:g}: must be between 1 and 3600 seconds. Leave it out for 30."
        )
    timing = Timing(arguments.patience)
    if arguments.claim is not None or arguments.lead:
        _lead(study, timing, lead_study, arguments.claim)
        return
    config = read_present_config(study)
    for override in cli.overrides_of(arguments) if arguments.config is None else ():
        if "=" in override:
            apply_override(config, override)
    options = [each for file in arguments.plugin for each in ("--plugin", str(file))]
    options += ["--verbose"] if arguments.verbose else []
    leading = LeadingProcess([*program, str(study), *options, "--patience", f"{timing.patience:g}"])
    member = Member(study, worker, lambda: local_executor(config), _make_name, leading.supervise, timing)
    logger.info("Study folder:  %s", in_one_line(study))
    try:
        end = member.run()
    finally:
        leading.close()
    best = command_line("python", "-m", "search", "best", study, files=arguments.plugin)
    logger.info("The study is %s:  %s", end, best)


def local_executor(config: Mapping[str, Any]) -> Executor:
    """Return the executor of a member's workers: that of the study, but never in the process that exchanges messages.

    Raises:
        ConfigError: The section is faulty.
        SearchError: It is an executor of several machines.
    """
    section = config.get("search", {}).get("executor", "serial")
    executor: Executor = instantiate({"search": {"executor": section}}, "search.executor", REGISTRY)
    if isinstance(executor, TableExecutor):
        raise SearchError(
            "search.executor: table, and simulated workers need no other processes. Search it alone: python -m search "
            "-c FILE; more workers are args.workers."
        )
    if isinstance(executor, RayCluster):
        raise SearchError(
            "search.executor: ray distributes the candidates itself, and join does, too. Write "
            '{"type": "processes", "args": {"workers": 1}}, the workers of each process that joins.'
        )
    return Processes(1, devices=executor.devices) if isinstance(executor, Serial) else executor


def create_shared_study(folder: Path, config: Mapping[str, Any], complete: CompleteConfig = dict) -> None:
    """Create a study, unless another process is doing so at the same time: it appears at once, or not at all.

    Args:
        folder: Folder of the study.
        config: The space.
        complete: Completes the config of a new study.

    Raises:
        SearchError: The folder cannot be written, or holds something else than a study of this space.
    """
    new = folder.with_name(f".{folder.name}.{platform.node()}.{os.getpid()}.new")
    try:
        if not (folder / CONFIG).is_file():
            new.mkdir(parents=True)
            try:
                (new / CONFIG).write_text(json.dumps(complete(config), indent=2) + "\n", encoding="utf-8")
                create_journal(new / JOURNAL)
                new.rename(folder)  # fails if the folder is there and not empty
            except OSError:
                if not (folder / CONFIG).is_file():
                    raise
            finally:
                shutil.rmtree(new, ignore_errors=True)
    except OSError as error:
        raise SearchError(
            f"--study {folder}: a study cannot be created there ({error.strerror}). Name a folder that does not exist, "
            "in one that you may write to."
        ) from error
    stored = read_study_config(folder)
    changed = differences(stored, as_in_study(stored, config, complete))
    if changed:
        raise SearchError(
            f"--study {folder}: it holds the study of another config: it differs in {', '.join(changed)}. Name another "
            f"folder, or join that one: {command_line('python', '-m', 'search', 'join', folder)}"
        )
    if ignored := changes(with_present_options(stored, folder), config):
        logger.warning(
            "--study %s: it continues as it is, and ignores another %s. Give it other options while nobody shares it: "
            "python -m search -c FILE --resume FOLDER.",
            folder,
            ", ".join(ignored),
        )


def _study_of(arguments: argparse.Namespace, complete: CompleteConfig) -> Path:
    """Return the folder of the study, created if the command line has its config.

    Raises:
        ConfigError: It is not clear which study is meant.
        SearchError: There is no study.
    """
    folders = [text for text in arguments.overrides if "=" not in text]
    folders += [] if arguments.study is None else [arguments.study]
    if len(folders) != 1:
        raise ConfigError(
            f"join: {' and '.join(folders) or 'no folder'} named. Name one: join STUDY, or -c FILE --study STUDY."
        )
    # Members may run in other folders, and are given paths of run folders.
    study = Path(folders[0]).absolute()
    overrides = [text for text in cli.overrides_of(arguments) if "=" in text]
    if arguments.config is not None:
        content = configuration.load_config(arguments.config, overrides)
        local_executor(content)  # refuses one that nobody can join, before there is a study
        create_shared_study(study, content, complete)
        return study
    for override in overrides:
        if not override.startswith("search.executor"):
            raise ConfigError(
                f"{override}: only search.executor may be another one for a process that joins. Create the study "
                "with its config: -c FILE --study STUDY."
            )
    if not (study / JOURNAL).is_file():
        raise SearchError(
            f"{study}: there is no study in it ({JOURNAL} is missing). Name the folder of one, or create one: -c FILE "
            "--study STUDY."
        )
    return study


def _make_name() -> str:
    return f"{platform.node().partition('.')[0]}-{os.getpid()}-{secrets.token_hex(3)}"


def _lead(study: Path, timing: Timing, lead_study: LeadStudy, claim: int | None) -> None:
    """Lead a study as soon as nobody else does, until it is done.

    Args:
        study: Folder of the study.
        timing: The clock.
        lead_study: Runs the study.
        claim: Number of the generation to claim; None: the next one that is free.
    """
    if claim is not None:
        threading.Thread(target=_leave_with_member, daemon=True).start()
    watcher = LeaseWatcher(study, timing)
    while True:
        view = LeaseView(claim - 1, is_free=True) if claim is not None else watcher.look()
        if view.end == "failed":
            raise SearchError(view.message)
        if view.end in ("done", "stopped"):
            return
        lease = Lease.claim(study, view.generation + 1, timing, _make_name()) if view.is_free else None
        if lease is not None:
            logger.info("This process leads the study (generation %d).", lease.generation)
            try:
                lead(study, lease, timing, lambda executor, journal: lead_study(study, executor, journal))
                return
            except LeaseLost as error:
                logger.warning("%s", error)
            except StoppedByCommand:
                return
            except Interrupted as stop:
                if claim is None:
                    raise LeftStudy(stop.signal_number) from stop
        if claim is not None:
            return
        time.sleep(timing.beat)


def _leave_with_member() -> None:
    """Leave when the member that started this process is gone: its end of the pipe is closed then."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


@dataclass
class LeadingProcess:
    """The process that a member starts to lead when nobody does: the member's own work goes on.

    Attributes:
        command: Its command line, without the generation.
    """

    command: Sequence[str]
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    _claim: int = field(default=0, init=False)  # the generation that it is to claim
    _num_failures: int = field(default=0, init=False)

    def supervise(self, view: LeaseView) -> None:
        """Start the process if nobody leads.

        Raises:
            SearchError: It ends again and again before it leads.
        """
        if view.generation >= self._claim:  # by this process or another one
            self._num_failures = 0
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process = None
            self._num_failures += code != 0 and view.generation < self._claim
        if self._num_failures >= _MOST_LEADERS_WITHOUT_CLAIM:
            command = " ".join(map(shell_word, self.command))
            raise SearchError(
                f"{command}: a process that was to lead the study ended {self._num_failures} times before it did. It "
                "has printed the reason: correct that, and join the study again."
            )
        if view.is_free:
            self._claim = view.generation + 1
            words = [*self.command, "--claim", str(self._claim)]
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE)

    def close(self) -> None:
        """Let the process end its leadership, and wait for it."""
        if self._process is None:
            return
        try:
            # One whose study is done ends by itself; another one leaves when the pipe is closed.
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process.wait(_SECONDS_TO_LEAVE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
