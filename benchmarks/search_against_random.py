"""A search beside random search without stopping, for the same time on the same machine: the best score of each.

    python benchmarks/search_against_random.py -c config/search/encdec_people.json --seeds 0 1 2 3 4 --minutes 5

For each study seed the scheduler of the file and random search work side by side, each in one process with one thread,
so that whatever slows the machine slows both. Both draw the same candidates in the same order, so neither is better
where both trained the best one in full. The score is the first objective at its best epoch.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from search.cli.study_commands import read_study
from search.results.leaderboard import leaderboard, ledger
from search.study.folders import find_studies

ROOT = Path(__file__).resolve().parents[1]
SCHEDULERS = {"its own": [], "random": ['search.scheduler="RandomSearch"']}


def begin(arguments: argparse.Namespace, scheduler: str, seed: int, save_dir: Path) -> "subprocess.Popen[bytes]":
    """Begin a search on one thread."""
    overrides = [
        *SCHEDULERS[scheduler],
        f"search.seed={seed}",
        f"search.budget.max_time={arguments.minutes}",
        "search.num_samples=1000",
        "search.executor=serial",
        'search.retrain={"top": 0}',
        f"trainer.save_dir={save_dir}",
    ]
    command = [sys.executable, "-m", "search", "-c", arguments.config, *arguments.overrides, *overrides]
    threads = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=threads, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def outcome(save_dir: Path) -> tuple[float, str]:
    """The best validation score and what it was found with."""
    study = read_study(find_studies(save_dir / study_name(save_dir))[0])
    best, spent = leaderboard(study)[0].candidate, ledger(study)
    metric = study.objectives[0].split()[-1]
    score = max(row[metric] for row in best.reports)
    return score, f"{score:.4f} ({spent.counted} candidates, {spent.epochs} epochs)"


def study_name(save_dir: Path) -> str:
    """The only folder below."""
    (folder,) = save_dir.iterdir()
    return folder.name


def main() -> None:
    """Search in pairs and print a row of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    print(f"| study seed | {' | '.join(SCHEDULERS)} | better |\n|---|---|---|---|")
    wins = 0
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            begun = {name: begin(arguments, name, seed, Path(folder) / name) for name in SCHEDULERS}
            for name, process in begun.items():
                _, words = process.communicate()
                if process.returncode:
                    raise SystemExit(f"{name} ended with {process.returncode}:\n{words.decode()[-2000:]}")
            found = {name: outcome(Path(folder) / name) for name in SCHEDULERS}
        own, random = (found[name][0] for name in SCHEDULERS)
        better = "neither" if own == random else "its own" if own > random else "random"
        wins += own > random
        print(f"| {seed} | {' | '.join(words for _, words in found.values())} | {better} |", flush=True)
    print(f"\nIts own scheduler was better {wins} times of {len(arguments.seeds)}")


if __name__ == "__main__":
    main()
