"""Kill a grid study ten times, its workers too, and compare its tables with those of one that was left in peace.

    python benchmarks/grid_kills.py [--kills 10] [--folder saved/grid_kills] [path=value ...]

Three conditions and three seeds of config/studies/people_width.json, with few epochs. At each kill the search, one of
its workers, or all of them get SIGKILL; then `--resume auto` continues. Both tables are printed, and must be equal in
every digit. Interrupted itself, it continues in its folder.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.search_kill_and_resume import WHO, kill, only_study, plain, start
from search.cli.listing import best_text
from search.results.record import StudyRecord

CONFIG = "config/studies/people_width.json"
OVERRIDES = ["trainer.epochs=12"]


def kill_again_and_again(overrides: list[str], folder: Path, kills: int, seconds: float) -> int:
    """Run the study with so many kills, on average `seconds` apart; return how many came before its end."""
    noted = folder / "kills.json"
    done = json.loads(noted.read_text()) if noted.exists() else 0
    folder.mkdir(parents=True, exist_ok=True)
    process = start(CONFIG, overrides, folder)
    while done < kills:
        time.sleep(random.Random(done).uniform(0.5, 1.5) * seconds)
        if process.poll() is not None and process.returncode == 0:
            return done
        kill(process, WHO[done % len(WHO)])
        if WHO[done % len(WHO)] != "worker":
            process.wait()
            process = start(CONFIG, overrides, folder)
        done += 1
        noted.write_text(json.dumps(done))
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
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=12.0, help="between two kills, on average")
    parser.add_argument("--folder", type=Path, default=Path("saved/grid_kills"))
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    overrides = [*OVERRIDES, *arguments.overrides]
    quiet, killed = arguments.folder.resolve() / "quiet", arguments.folder.resolve() / "killed"
    if start(CONFIG, overrides, quiet).wait() != 0:
        raise SystemExit("the study that is left in peace did not end well")
    kills = kill_again_and_again(overrides, killed, arguments.kills, arguments.seconds)
    studies = [only_study(quiet), only_study(killed)]
    for title, study in zip(("Left in peace", f"Killed {kills} times"), studies, strict=True):
        print(f"== {title}: {len(study.sessions)} sessions\n{best_text(study)}\n")
    found = differing(*studies)
    print(f"{kills} kills: {'identical' if not found else 'differs in ' + ', '.join(found)}")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
