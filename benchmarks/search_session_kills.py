"""Kill the processes of many small studies at random events, and compare them with undisturbed ones.

`python benchmarks/search_session_kills.py --seeds 5`: successive halving and ASHA, on one and two worker processes
without a network (`tests/support/search_worker.py`). In each session all workers, the search, or both get SIGKILL at a
random event of the journal; the next session continues. Candidates, decisions, rungs, retrainings must be equal; with
ASHA on two workers, whose decisions follow from who reports first, no report may be lost or repeated, and curves are
equal as far as both go.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from search.results.record import StudyRecord
from search.study.folders import create_study_folder
from search.study.study import read
from tests.support.without_times import without_times
from tests.test_search_killed import CONFIG, decisions, killed_at_random, parts_of, session

KILLS = 6  # sessions that end with one; the study is done in the next
CASES = (("halving", 1), ("halving", 2), ("asha", 1), ("asha", 2))


def is_equal(quiet: StudyRecord, killed: StudyRecord) -> bool:
    """Return whether two studies are equal but for their times."""
    return (
        list(map(without_times, quiet.candidates)) == list(map(without_times, killed.candidates))
        and list(map(without_times, quiet.retrained)) == list(map(without_times, killed.retrained))
        and quiet.rungs == killed.rungs
    )


def has_same_curves(quiet: StudyRecord, killed: StudyRecord) -> bool:
    """Return whether every epoch was reported once, and curves are equal as far as both go."""
    expected = {each.index: without_times(each).reports for each in quiet.candidates}
    for each in killed.candidates:
        rows, others = without_times(each).reports, expected.get(each.index, [])
        shared = min(len(rows), len(others))
        if [row["epoch"] for row in rows] != list(range(1, len(rows) + 1)) or rows[:shared] != others[:shared]:
            return False
    return killed.is_done


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    logging.disable(logging.WARNING)  # the fake worker leaves no weights
    kills = faults = 0
    for seed in range(seeds):
        for scheduler, workers in CASES:
            with tempfile.TemporaryDirectory() as scratch:
                folders = [create_study_folder(f"{scratch}/{name}", "sample", CONFIG) for name in ("quiet", "killed")]
                session(folders[0], scheduler, workers)
                killed = killed_at_random(folders[1], scheduler, workers, kills=KILLS - (workers > 1), seed=seed)
                quiet = read(folders[0], parts_of(scheduler))
                is_free = (scheduler, workers) == ("asha", 2)
                is_good = has_same_curves(quiet, killed) if is_free else is_equal(quiet, killed)
                is_good = is_good and (is_free or decisions(folders[0]) == decisions(folders[1]))
            kills += KILLS - (workers > 1)
            faults += not is_good
            print(f"seed {seed}, {scheduler}, {workers} workers: {'identical' if is_good else 'DIFFERENT'}", flush=True)
    print(f"{kills} SIGKILLs in {seeds * len(CASES)} studies: {faults} differ")


if __name__ == "__main__":
    main()
