"""What the workers of a search did with their time: `python benchmarks/search_busy.py saved/encdec_people/STUDY`.

From the journal, while candidates were searched: the share of the workers' time in which they had a candidate in hand,
and in which they trained or validated it.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from search.study.folders import read_study_config
from search.study.journal import JOURNAL, read_events


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    folder = parser.parse_args().study
    workers = read_study_config(folder)["search"]["executor"]["args"]["workers"]
    begun: dict[int, float] = {}
    in_hand = trained = 0.0
    times = []
    for event in read_events(folder / JOURNAL):
        if event.name == "search.done":
            break
        if event.candidate is None:
            continue
        times.append(event.seconds)
        if event.kind == "job":
            begun[event.candidate] = event.seconds
        elif event.kind == "report":
            trained += event.data["seconds"]
        elif event.kind in ("ended", "lost") and event.candidate in begun:
            in_hand += event.seconds - begun.pop(event.candidate)
    there = workers * (times[-1] - times[0])
    print(f"{workers} workers, {there / workers:.0f} s: {in_hand / there:.1%} with a candidate in hand, ", end="")
    print(f"{trained / there:.1%} training or validating it")


if __name__ == "__main__":
    main()
