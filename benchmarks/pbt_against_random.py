"""Population based training against random search at equal epochs: the best validation score of each, and its test.

    python benchmarks/pbt_against_random.py --save-dir saved/pbt_against_random

For each study seed three studies of `config/search/pbt_people.json` are run, each with as many candidates and epochs:
PBT, random search of the same space (its values are constant during a training), and random search with a cosine
schedule of the learning rate. The first population of PBT are the candidates of random search. A study that was
interrupted is continued by the same command. The test data has chosen nothing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from search.cli.study_commands import read_study
from search.results.leaderboard import leaderboard, ledger
from search.study.folders import find_studies

ROOT = Path(__file__).resolve().parents[1]
METHODS = {
    "PBT": [],
    "random": ["search.strategy=null", "search.sampler=random"],
    "random, cosine": [
        "search.strategy=null",
        "search.sampler=random",
        'lr_scheduler={"type": "CosineAnnealingLR", "interval": "step"}',
    ],
}


def run(command: list[str]) -> str:
    """Run a command on one thread and return its output."""
    threads = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=threads, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def scores(save_dir: Path, method: str, seed: int, overrides: list[str]) -> tuple[float, float, int]:
    """Complete a study, and return the validation and test score of its best candidate and the epochs trained."""
    place = save_dir / f"{method.replace(', ', '_')}_{seed}"
    chosen = [*METHODS[method], f"search.seed={seed}", f"seed={seed}", f"trainer.save_dir={place}", *overrides]
    run(["-m", "search", "-c", "config/search/pbt_people.json", *chosen, "--resume", "auto"])
    folder = find_studies(place)[0]
    study, tested = read_study(folder), folder / "tested.json"
    if not tested.exists():
        best = str(folder / "best" / "model_best.pth")
        run(["test.py", "--resume", best, "--split", "test", "--json", str(tested), "-d", "cpu"])
    test_score = json.loads(tested.read_text())["metrics"]["miou"]
    return leaderboard(study)[0].candidate.objectives["val_miou"], test_score, ledger(study).epochs


def main() -> None:
    """Run all studies, and print a row per seed and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    print(f"| study seed | {' | '.join(METHODS)} |\n|---|{'---|' * len(METHODS)}", flush=True)
    columns: dict[str, list[tuple[float, float, int]]] = {method: [] for method in METHODS}
    for seed in arguments.seeds:
        for method, column in columns.items():
            column.append(scores(arguments.save_dir.resolve(), method, seed, arguments.overrides))
        row = [f"{column[-1][0]:.4f} / {column[-1][1]:.4f} ({column[-1][2]})" for column in columns.values()]
        print(f"| {seed} | {' | '.join(row)} |", flush=True)
    means = [[statistics.fmean(each[place] for each in column) for place in (0, 1)] for column in columns.values()]
    print(f"| mean | {' | '.join(f'{valid:.4f} / {test:.4f}' for valid, test in means)} |")
    print("\nval_miou / test_miou (epochs of all candidates)")


if __name__ == "__main__":
    main()
