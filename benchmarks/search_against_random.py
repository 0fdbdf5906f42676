"""The default search against random search at equal time: the best validation score by then, and the winners' test.

    python benchmarks/search_against_random.py --save-dir saved/search_against_random
    python benchmarks/search_against_random.py --save-dir saved/search_against_random --only-table

For each study seed two studies of `config/search/encdec_people.json` are run, each for as many minutes: random search,
which trains each candidate to its end, and the default search, which is plain ASHA with the sampler `auto`. The winner
by validation is trained again with three seeds, and these networks are tested. Time is the processor time of two
workers and of the search itself (`benchmarks/processor_time.py`), so that other work on the machine decides little; but
it fills the caches, so let the machine be idle. A study that was interrupted is continued by the same command. What a
complete study found is a line of `benchmarks/results/search_against_random.jsonl`; a study that has its line is not run
again. The test data has chosen nothing. It needs human_ccp in `data/human_ccp`.
"""

import argparse
import json
import math
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.pbt_against_random import ROOT, run
from search.cli.study_commands import read_study
from search.results.leaderboard import ledger
from search.results.progress import best_so_far
from search.results.record import parse_objectives
from search.study.folders import find_studies
from utils.plugins import load_plugins

PLUGIN = "benchmarks/processor_time.py"
RESULTS = ROOT / "benchmarks/results/search_against_random.jsonl"
METHODS = {
    "random": ["search.scheduler=RandomSearch", "search.sampler=random"],
    "default": ["search.scheduler=ASHA"],
}


def search(place: Path, method: str, seed: int, minutes: float, overrides: list[str]) -> None:
    """Complete a study."""
    chosen = [
        *METHODS[method],
        "search.num_samples=10000",
        f'search.budget={{"max_time": {minutes}}}',
        'search.executor={"type": "processor_time.ProcessorTime", "args": {"workers": 2}}',
        'search.retrain={"top": 1, "seeds": 3}',
        f"search.seed={seed}",
        f"trainer.save_dir={place}",
        *overrides,
    ]
    config = "config/search/encdec_people.json"
    run(["-m", "search", "-c", config, "--plugin", PLUGIN, *chosen, "--resume", "auto"])


@dataclass
class Found:
    """What a completed study found.

    Attributes:
        method: Name of the method.
        seed: Of the study.
        machine: Vector instructions of its processor that matter here.
        candidates: Number of candidates drawn.
        epochs: Epochs of all of them.
        in_full: Best validation score of each candidate that was trained to its last epoch, best first.
        course: Seconds and value of each improvement of the best validation score.
        tested: Test score of the winner's networks, one per seed.
    """

    method: str
    seed: int
    machine: str
    candidates: int
    epochs: int
    in_full: list[float]
    course: list[tuple[float, float]]
    tested: list[float]

    @property
    def best(self) -> float:
        """The best validation score."""
        return self.course[-1][1]

    def minutes_to(self, value: float) -> float:
        """Return the minutes until a validation score was reached; infinite if it never was."""
        return min((seconds for seconds, score in self.course if score >= value), default=math.inf) / 60


def read_found(folder: Path, method: str, seed: int) -> Found:
    """Read what a completed study found, and test its winners."""
    study = read_study(folder)
    (objective,) = parse_objectives(study.objectives)
    course = best_so_far(study, objective)
    trained = [each for each in study.candidates if each.epochs == study.max_epochs]
    flags = Path("/proc/cpuinfo").read_text().split()
    return Found(
        method=method,
        seed=seed,
        candidates=len(study.candidates),
        machine="bf16" if {"avx512_bf16", "amx_bf16"} & {*flags} else "AVX2",
        epochs=ledger(study).epochs,
        in_full=sorted((each.objectives[objective.name] for each in trained), reverse=True),
        course=[(each.seconds, each.value) for each in course if each.seconds is not None],
        tested=[_test_score(run) for run in sorted((folder / "retrained").glob("candidate*_seed*"))],
    )


def _test_score(run_folder: Path) -> float:
    tested = run_folder / "tested.json"
    if not tested.exists():
        best = str(run_folder / "model_best.pth")
        run(["test.py", "--resume", best, "--split", "test", "--json", str(tested), "-d", "cpu"])
    return float(json.loads(tested.read_text())["metrics"]["miou"])


def table(pairs: dict[int, tuple[Found, Found]], minutes: float) -> str:
    """Return a row per study seed, the median share of time, and the mean difference with its 95 % interval."""
    lines = [
        "| study seed | random: best val mIoU (candidates, epochs) | default | its time to random's best | share | "
        "test mIoU of the winners: random | default | difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    shares, differences = [], []
    for seed, (random, default) in pairs.items():
        reached = default.minutes_to(random.best)
        shares.append(reached / minutes)
        means = [statistics.fmean(each.tested) for each in (random, default)]
        differences.append(means[1] - means[0])
        cells = [f"{each.best:.4f} ({each.candidates}, {each.epochs})" for each in (random, default)]
        time = ["never", "never"] if math.isinf(reached) else [f"{reached:.1f} min", f"{shares[-1]:.2f}"]
        cells += [*time, f"{means[0]:.4f}", f"{means[1]:.4f}"]
        lines.append(f"| {seed} | {' | '.join(cells)} | {differences[-1]:+.4f} |")
    lines.append(f"\nmedian share of time {statistics.median(shares):.2f}")
    count = len(differences)
    if count > 1:
        half = stats.t.ppf(0.975, count - 1) * statistics.stdev(differences) / math.sqrt(count)
        lines.append(f"mean difference on test data {statistics.fmean(differences):+.4f} ± {half:.4f} (95 %)")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, and print the table of the seeds that are complete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="to run; by default both")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--only-table", action="store_true", help="of the seeds that are complete; train nothing")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    load_plugins([str(ROOT / PLUGIN)])
    for seed in arguments.seeds:
        for method in arguments.methods:
            if arguments.only_table or (method, seed) in read_results():
                continue
            place = arguments.save_dir.resolve() / f"{method}_{seed}"
            search(place, method, seed, arguments.minutes, arguments.overrides)
            RESULTS.parent.mkdir(exist_ok=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps(asdict(read_found(find_studies(place)[0], method, seed))) + "\n")
            print_table(arguments.minutes)
    if arguments.only_table:
        print_table(arguments.minutes)


def read_results() -> dict[tuple[str, int], Found]:
    """Read what the complete studies found, by method and seed."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    found = [Found(**json.loads(line)) for line in lines]
    return {(each.method, each.seed): each for each in found}


def print_table(minutes: float) -> None:
    """Print the table of the seeds whose two studies are complete."""
    found = read_results()
    seeds = sorted({seed for _, seed in found if all((method, seed) in found for method in METHODS)})
    if seeds:
        pairs = {seed: (found["random", seed], found["default", seed]) for seed in seeds}
        print(f"{table(pairs, minutes)}\n", flush=True)


if __name__ == "__main__":
    main()
