"""Kill a search at random moments, its workers too, and compare it with one that was left in peace.

`python benchmarks/search_kill_and_resume.py -c config/search/minimal.json --kills 30 [path=value ...]`: at each moment
the search, one of its workers or both get SIGKILL; then `--resume auto` goes on. Decisions, curves and the winner must
be the same. `--asynchronous`, for ASHA on several workers, whose decisions follow from who comes first: no report may
be lost or repeated, and a candidate's curve must be that of the other search as far as both go.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from search.cli.study_commands import read_study
from search.results.record import StudyRecord
from search.study.folders import find_studies

ROOT = Path(__file__).resolve().parents[1]
WHO = ("search", "worker", "both")


def start(config: str, overrides: list[str], save_dir: Path) -> "subprocess.Popen[bytes]":
    """Begin the search, or go on with it; its output is added to `search.log` next to the studies."""
    command = [sys.executable, "-m", "search", "-c", config, "--resume", "auto", *overrides]
    save_dir.mkdir(parents=True, exist_ok=True)
    with open(save_dir / "search.log", "ab") as log:
        return subprocess.Popen(
            [*command, f"trainer.save_dir={save_dir}"], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )


def workers_of(process: int) -> list[int]:
    """The processes that a process has started."""
    children = Path(f"/proc/{process}/task/{process}/children")
    return [int(word) for word in children.read_text().split()] if children.exists() else []


def kill(process: "subprocess.Popen[bytes]", who: str) -> None:
    """End the search, a worker, or all of them, with no chance to save."""
    workers = workers_of(process.pid)
    victims = {"search": [process.pid], "worker": workers[-1:], "both": [*workers, process.pid]}[who]
    for victim in victims:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue


def interrupted(config: str, overrides: list[str], save_dir: Path, kills: int, seconds: float) -> int:
    """Run a search with so many kills, on average `seconds` apart; how many came before its end."""
    chance, done = random.Random(0), 0
    process = start(config, overrides, save_dir)
    while done < kills:
        time.sleep(chance.uniform(0.2, 2) * seconds)
        if process.poll() is not None and process.returncode == 0:
            return done
        kill(process, WHO[done % len(WHO)])
        done += 1
        if WHO[(done - 1) % len(WHO)] != "worker":
            process.wait()
            process = start(config, overrides, save_dir)
    if process.wait() != 0:
        raise SystemExit("the search did not end well")
    return done


def only_study(folder: Path) -> StudyRecord:
    """The study below a folder, of which there must be one: every kill went on with it."""
    found = find_studies(folder)
    if len(found) != 1:
        raise SystemExit(f"{len(found)} studies in {folder}: a resume began another one")
    return read_study(found[0])


def plain(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Rows without what a clock said."""
    return [{name: value for name, value in row.items() if name not in ("epoch_seconds", "seconds_at")} for row in rows]


def curve_differences(quiet: StudyRecord, killed: StudyRecord) -> list[str]:
    """Candidates whose epochs are not 1, 2, 3 and so on, or whose curve is another than it was as far as both go."""
    found = []
    curves = {each.index: plain(each.reports) for each in quiet.candidates}
    for candidate in killed.candidates:
        rows, others = plain(candidate.reports), curves.get(candidate.index, [])
        shared = min(len(rows), len(others))
        if [row["epoch"] for row in rows] != list(range(1, len(rows) + 1)):
            found.append(f"candidate {candidate.index}: its epochs")
        if rows[:shared] != others[:shared]:
            found.append(f"candidate {candidate.index}: its curve")
    return found


def differences(quiet: StudyRecord, killed: StudyRecord) -> list[str]:
    """What differs, but for seconds."""
    found = [] if len(quiet.candidates) == len(killed.candidates) else ["the number of candidates"]
    for left, right in zip(quiet.candidates, killed.candidates, strict=False):
        for name in ("seed", "drawn", "status", "objectives", "best_epoch"):
            if getattr(left, name) != getattr(right, name):
                found.append(f"candidate {left.index}: {name}")
        if plain(left.reports) != plain(right.reports):
            found.append(f"candidate {left.index}: its curve")
    found += [] if quiet.rungs == killed.rungs else ["the rungs"]
    for one, other in zip(quiet.retrained, killed.retrained, strict=True):
        if plain(one.reports) != plain(other.reports) or one.test != other.test:
            found.append(f"the retraining of candidate {one.candidate}")
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--config", required=True)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=12.0, help="between two kills, on average")
    parser.add_argument("--asynchronous", action="store_true", help="compare curves only, as far as both go")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as scratch:
        quiet, killed = Path(scratch) / "quiet", Path(scratch) / "killed"
        if start(arguments.config, arguments.overrides, quiet).wait() != 0:
            raise SystemExit("the search that is left in peace did not end well")
        kills = interrupted(arguments.config, arguments.overrides, killed, arguments.kills, arguments.seconds)
        compare = curve_differences if arguments.asynchronous else differences
        found = compare(only_study(quiet), only_study(killed))
        sessions = len(only_study(killed).sessions)
    print(f"{kills} kills, {sessions} sessions: {'identical' if not found else 'differs in ' + ', '.join(found)}")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
