"""Kills of a search at random moments of each of its stages, and what is compared with one left in peace."""

import hashlib
import json
import random
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.grid_kills import differing
from benchmarks.search_kill_and_resume import WHO, kill, only_study, start
from search.results.record import StudyRecord
from search.study.folders import find_studies
from search.study.journal import JOURNAL, Event, read_events
from utils.checkpoint_file import read_checkpoint

_KINDS = ("drawn", "decoded", "generation", "selected", "report", "ended", "done")  # of the events that are compared


@dataclass(frozen=True)
class Stages:
    """The stages of a search.

    Attributes:
        after: Returns the stage after the first events of a journal that are work, by its name.
        seconds: About how long each stage stays at one event; None: for one and a half epochs.
        clocks: Columns of the strategy's tables that hold times.
    """

    after: Callable[[list[Event]], str]
    seconds: Mapping[str, float | None]
    clocks: tuple[str, ...] = ()


def moments(quiet: list[Event], stages: Stages, kills: Sequence[int]) -> list[tuple[int, float]]:
    """Return for each kill the number of events before it that are work, and the seconds that it comes later.

    Args:
        quiet: The work of the study that is left in peace.
        stages: The stages of the search.
        kills: Numbers of kills in each stage, in the order of `stages.seconds`.
    """
    epochs = [event.data["seconds"] for event in quiet if event.kind == "report"]
    places: dict[str, list[int]] = {stage: [] for stage in stages.seconds}
    for number in range(1, len(quiet)):
        places[stages.after(quiet[:number])].append(number)
    found, chance = [], random.Random(0)
    for (stage, events), count in zip(places.items(), kills, strict=True):
        most_seconds = stages.seconds[stage] or 1.5 * sum(epochs) / len(epochs)
        found += [(chance.choice(events), chance.uniform(0, most_seconds)) for _ in range(count)]
    return sorted(found)


def work_of(study: Path) -> list[Event]:
    """Return the events of a journal that are no sign of a session or a loss."""
    return [event for event in read_events(study / JOURNAL) if event.stage != "study" and event.kind != "lost"]


def kill_over_all_stages(config: str, folder: Path, stages: Stages, wanted: list[tuple[int, float]]) -> list[str]:
    """Run the search with a kill at each of these moments; return the stages that were killed."""
    folder.mkdir(parents=True, exist_ok=True)
    noted = folder / "kills.json"
    killed: list[str] = json.loads(noted.read_text()) if noted.exists() else []
    process = start(config, [], folder)
    while len(killed) < len(wanted):
        events, seconds = wanted[len(killed)]
        if not wait_for(process, folder, events, seconds):
            break
        who = WHO[len(killed) % len(WHO)]
        killed.append(stages.after(work_of(find_studies(folder)[0])))
        kill(process, who)
        noted.write_text(json.dumps(killed))
        if who != "worker":
            process.wait()
            process = start(config, [], folder)
    if process.wait() != 0:
        raise SystemExit(f"the search did not end well, see {folder / 'search.log'}")
    return killed


def num_work(folder: Path) -> int:
    """Return the number of events of `work_of` for the study below a folder, fast; 0 if there is none yet."""
    journal = next(folder.glob(f"*/*/{JOURNAL}"), None)
    if journal is None:
        return 0
    query = "SELECT count(*) FROM events WHERE name NOT LIKE 'study.%' AND name NOT LIKE '%.lost'"
    with closing(sqlite3.connect(journal, timeout=30)) as connection:
        return int(connection.execute(query).fetchone()[0])


def wait_for(process: "subprocess.Popen[bytes]", folder: Path, events: int, seconds: float) -> bool:
    """Wait until a journal has so many events, and some seconds more; return whether the process still runs."""
    while process.poll() is None and num_work(folder) < events:
        time.sleep(0.002)
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return process.poll() is None


def tensors_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each tensor of each checkpoint below a study, by file and key."""
    found = {}
    for path in sorted(folder.rglob("*.pth")):
        for key, tensor in _tensors(read_checkpoint(path), ""):
            content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            found[f"{path.relative_to(folder)}{key}"] = hashlib.sha256(content).hexdigest()
    return found


def _tensors(value: Any, key: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield key, value
    elif isinstance(value, dict | list | tuple):
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors(each, f"{key} {name}")


def facts_of(folder: Path) -> dict[str, Any]:
    """Return the events of a journal on candidates and their results, without times."""
    found = {}
    for event in read_events(folder / JOURNAL):
        if event.kind in _KINDS and event.stage != "study":
            data = {name: value for name, value in event.data.items() if name not in ("seconds", "bytes")}
            data |= {"row": {k: v for k, v in data["row"].items() if "seconds" not in k}} if "row" in data else {}
            found[f"{event.name} {event.candidate} {data.get('run', '')} {data.get('epoch', '')}"] = data
    return found


def without_columns(section: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return a section of a report whose table has none of these columns."""
    table = section.get("table")
    if not table:
        return dict(section)
    places = [place for place, name in enumerate(table[0]) if name not in names]
    return {**section, "table": [[row[place] for place in places] for row in table]}


def compare(config: str, folder: Path, stages: Stages, kills: Sequence[int]) -> tuple[list[StudyRecord], list[str]]:
    """Run a search in peace and one with kills in each stage, each to its end.

    Args:
        config: File of the config.
        folder: Of both; what was interrupted there is continued.
        stages: The stages of the search.
        kills: Numbers of kills in each stage.

    Returns:
        Both studies, and what differs between them.

    Raises:
        SystemExit: A search did not end well.
    """
    quiet, killed = folder / "quiet", folder / "killed"
    is_done = bool(find_studies(quiet)) and only_study(quiet).is_done
    if not is_done and start(config, [], quiet).wait() != 0:
        raise SystemExit("the search that is left in peace did not end well")
    studies = [only_study(quiet)]
    in_peace = Path(studies[0].folder)
    done = kill_over_all_stages(config, killed, stages, moments(work_of(in_peace), stages, kills))
    studies.append(only_study(killed))
    resumed = Path(studies[1].folder)
    for study in studies:
        study.sections = [without_columns(section, stages.clocks) for section in study.sections]
    found = differing(*studies)
    for one, other in zip(studies[0].retrained, studies[1].retrained, strict=False):
        if (one.candidate, one.test) != (other.candidate, other.test) or not one.test:
            found.append(f"the test of candidate {one.candidate}")
    tensors = tensors_of(in_peace)
    for before, after in ((facts_of(in_peace), facts_of(resumed)), (tensors, tensors_of(resumed))):
        found += sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    print(f"{len(done)} kills, by stage {dict(Counter(done))}; {len(studies[1].sessions)} sessions")
    print(f"{len(studies[0].retrained)} tests, {len(tensors):,} tensors of checkpoints")
    return studies, found
