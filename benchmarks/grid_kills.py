"""Kill a grid study ten times, its workers too, and compare its tables with those of one that was left in peace.

    python benchmarks/grid_kills.py [-c STUDY] [--kills 10] [--folder saved/grid_kills] [path=value ...]

Three conditions and three seeds of config/studies/people_width.json, or another study. At each kill the search, one of
its workers, or all of them get SIGKILL; then `--resume auto` continues. Both tables are printed, and must be equal in
every digit. Interrupted itself, it continues in its folder.
"""

import argparse
import json
import random
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.search_kill_and_resume import WHO, kill, only_study, plain, start
from search.cli.listing import best_text
from search.results.record import StudyRecord
from search.study.folders import find_studies
from search.study.journal import JOURNAL

CONFIG = "config/studies/people_width.json"


def num_events(folder: Path) -> int:
    """Return the number of events in the journal of the study below a folder; 0 if there is none yet."""
    found = find_studies(folder)
    if not found:
        return 0
    with closing(sqlite3.connect(found[0] / JOURNAL, timeout=30)) as connection:
        return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])


def kill_again_and_again(config: str, overrides: list[str], folder: Path, kills: int, events: int) -> int:
    """Run the study with so many kills, spread over its events.

    Args:
        config: File of the study.
        overrides: Of the config.
        folder: Of the study.
        kills: Number of kills.
        events: Events of a study that is left in peace.

    Returns:
        Number of the kills; fewer if the study ended before the last of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    noted = folder / "kills.json"
    done = json.loads(noted.read_text()) if noted.exists() else 0
    process = start(config, overrides, folder)
    while done < kills:
        moment = events * (done + random.Random(done).uniform(0.2, 1.0)) / (kills + 1)
        while process.poll() is None and num_events(folder) < moment:
            time.sleep(0.05)
        if process.poll() is not None:
            break
        kill(process, WHO[done % len(WHO)])
        done += 1
        noted.write_text(json.dumps(done))
        if WHO[(done - 1) % len(WHO)] != "worker":
            process.wait()
            process = start(config, overrides, folder)
    if process.wait() != 0:
        raise SystemExit("the study did not end well")
    return done


def differing(quiet: StudyRecord, killed: StudyRecord) -> list[str]:
    """Return what differs, but for seconds."""
    found = [] if quiet.sections == killed.sections else ["the tables"]
    for one, other in zip(quiet.candidates, killed.candidates, strict=True):
        for name in ("seed", "drawn", "status", "objectives", "best_epoch", "test"):
            if getattr(one, name) != getattr(other, name):
                found.append(f"candidate {one.index}: {name}")
        if without_clock(one.reports) != without_clock(other.reports):
            found.append(f"candidate {one.index}: its curve")
    return found


def without_clock(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return rows without times."""
    return [{name: value for name, value in row.items() if name != "seconds_at"} for row in plain(rows)]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", default=CONFIG)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("saved/grid_kills"))
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    config, overrides = arguments.config, arguments.overrides
    quiet, killed = arguments.folder.resolve() / "quiet", arguments.folder.resolve() / "killed"
    if start(config, overrides, quiet).wait() != 0:
        raise SystemExit("the study that is left in peace did not end well")
    kills = kill_again_and_again(config, overrides, killed, arguments.kills, num_events(quiet))
    studies = [only_study(quiet), only_study(killed)]
    for title, study in zip(("Left in peace", f"Killed {kills} times"), studies, strict=True):
        print(f"== {title}: {len(study.sessions)} sessions\n{best_text(study)}\n")
    found = differing(*studies)
    print(f"{kills} kills: {'identical' if not found else 'differs in ' + ', '.join(found)}")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
