"""How good a setting each search finds for the price of nine full trainings, on tabulated learning curves.

    pip install -r requirements-benchmarks.txt
    python benchmarks/search_simulation.py data/learning_curves --nasbench data/nasbench201/cifar10.npz

Every search chooses among the same 1,000 settings of a table and may train nine times as many epochs as a full training
has. An epoch counts when it begins; those that run when the last one has begun are trained to their end. On real curves
an epoch takes 1, on LCBench the seconds of the table. A repeat is a seed: all that draw at random draw the settings in
the same order. The choice is the setting whose last value that the search saw is the best, however long it was trained;
it is judged by its value after a full training: its rank among the 1,000 (1 is the best; those that diverged are last)
and its regret. The time is that until a search has seen a value as good as the best one that Syne Tune's ASHA saw in
its whole run with the same seed, as a share of the time of that run.

Each search is a line of the output file, and is not computed again: stop it whenever you like. The tables are made of
all lines there. After a change of the code, delete the lines of the searches that it concerns.

A search of ours is a scheduler and a sampler with their arguments: --contenders 'ASHA:{"mode": "promote"}+random'.
--leave-one-out 'promote-*+gp*' chooses among those that match, for each table by all the others.
"""

import argparse
import itertools
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are small; before numpy is imported

from benchmarks.result_files import beginning, require_result_file
from benchmarks.search_contenders import REFERENCE, Contender, contenders, described, installed
from benchmarks.search_tasks import LCBENCH, REAL, Task, read_tasks
from benchmarks.simulation_results import (
    COLUMNS,
    Figures,
    Key,
    Result,
    ResultFile,
    figures_of,
    grouped,
    leave_one_out,
    median_ranks,
)
from benchmarks.simulator import Simulation, simulate
from benchmarks.two_objectives import FrontTask, front_samplers

WORKERS = (1, 4)
REPEATS, MODEL_REPEATS = 100, 20


def search(contender: Contender, task: Task, workers: int, seed: int) -> Result:
    """Simulate a search."""
    began = time.process_time()
    scheduler, sampler = contender.make(task, seed)
    found = simulate(scheduler, task.table, sampler=sampler, seed=seed, workers=workers, budget=task.budget)
    steps = tuple(improvements(found)) or ((math.inf, -math.inf),)
    best = next((epoch for epoch in found.trace if epoch.value == steps[-1][1]), found.trace[0])
    last = best.setting if found.setting is None else found.setting  # None: all have diverged
    return Result(
        contender.name,
        task.name,
        workers,
        seed,
        int(task.ranks[last]),
        float(task.regrets[last]),
        int(task.ranks[best.setting]),
        float(task.regrets[best.setting]),
        steps[-1][1],
        found.epochs,
        found.seconds,
        len(found.settings),
        round(time.process_time() - began, 3),
        steps,
    )


def improvements(found: Simulation) -> Iterator[tuple[float, float]]:
    """Yield time and value of each epoch that is better than all before it."""
    best = -math.inf
    for epoch in found.trace:
        if epoch.value > best:
            best = epoch.value
            yield epoch.seconds, best


def main() -> None:
    """Compute what the file lacks, then print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the tables of learning curves (.npz)")
    parser.add_argument("--nasbench", type=Path, help="table of NAS-Bench-201: two objectives, 100 trainings")
    parser.add_argument("--contenders", nargs="*", default=[], metavar="NAME", help="patterns; default: all")
    parser.add_argument("--samplers", nargs="*", default=[], metavar="NAME", help="for --nasbench; default: all")
    parser.add_argument("--workers", nargs="*", type=int, default=list(WORKERS))
    parser.add_argument("--tasks", default="", help="only tables whose names contain this")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of those that draw at random")
    parser.add_argument("--model-repeats", type=int, default=MODEL_REPEATS, help="of the others")
    parser.add_argument("--output", type=Path, default=Path("search_simulation.csv"))
    parser.add_argument("--reference", default=REFERENCE, help="whose accuracy is to be reached")
    parser.add_argument("--leave-one-out", default="", metavar="PATTERN")
    parser.add_argument("--only-print", action="store_true", help="compute nothing")
    parser.add_argument("--markdown", action="store_true", help="print the table of README.md, too")
    options = parser.parse_args()
    require_result_file(options.output, beginning(",".join(COLUMNS)), ".csv")
    tasks = [task for task in read_tasks(options.folder) if options.tasks in task.name]
    file = ResultFile(options.output)
    front = None if options.nasbench is None else FrontTask(options.nasbench)
    if not options.only_print:
        compute_curves(file, tasks, options)
        if front is not None:
            compute_fronts(file, front, options)
    results = list(file.results.values())
    print_tables(results, tasks, options.reference)
    if options.markdown:
        print_markdown(results, tasks, options.reference)
    if options.leave_one_out:
        print_chosen(results, options.leave_one_out, [task.name for task in tasks])
    if front is not None:
        front.print_table(results)


def compute_curves(file: ResultFile, tasks: Sequence[Task], options: argparse.Namespace) -> None:
    """Compute what the file lacks: a seed of all contenders before the next seed, so it is always balanced."""
    chosen, missing = installed(contenders(options.contenders))
    for contender in missing:
        print(f"{contender.name}: {contender.package} is not installed, left out. See requirements-benchmarks.txt.")
    for seed in range(max(options.repeats, options.model_repeats)):
        active = [each for each in chosen if seed < (options.model_repeats if each.is_model else options.repeats)]
        for contender, task, workers in itertools.product(active, tasks, options.workers):
            if Key(contender.name, task.name, workers, seed) not in file.results:
                file.add(search(contender, task, workers, seed))


def compute_fronts(file: ResultFile, front: FrontTask, options: argparse.Namespace) -> None:
    """Compute what the file lacks of the searches with two objectives."""
    for name, make in front_samplers(options.samplers).items():
        for seed in range(options.repeats if name == "random" else options.model_repeats):
            if Key(name, front.name, 1, seed) not in file.results:
                file.add(front.search(name, make, seed))


def all_figures(
    results: Sequence[Result], tasks: Sequence[Task], kind: str, workers: int, reference: str
) -> dict[str, tuple[Figures, int, bool]]:
    """Return by contender its figures, the number of tables that it lacks, and whether it has a random twin."""
    names = [task.name for task in tasks if task.kind == kind]
    worst = {task.name: float(task.regrets[task.regrets < math.inf].max()) for task in tasks}
    groups = grouped(results, names, workers)
    known = {each.name: each for each in contenders([])}
    known |= {name: described(name) for name in groups if name not in known and "+" in name}
    found = {}
    for name in sorted(groups, key=list(known).index):
        twin = groups.get(known[name].twin, {})
        figures = figures_of(groups[name], groups.get(reference, {}), twin, worst)
        found[name] = (figures, len(names) - len(groups[name]), bool(twin))
    return found


def print_tables(results: Sequence[Result], tasks: Sequence[Task], reference: str) -> None:
    """Print a table for each kind of task and each number of workers, then the median rank on each table."""
    for kind, workers in itertools.product((REAL, LCBENCH), sorted({result.workers for result in results})):
        names = [task.name for task in tasks if task.kind == kind]
        found = all_figures(results, tasks, kind, workers, reference)
        if not found:
            continue
        print(f"\n{kind}, {workers} worker{'s' if workers > 1 else ''}; {len(names)} tables")
        print(
            f"{'':42}{'repeats':>8}{'rank':>7}{'(best)':>7}{'worst':>7}{'regret':>9}{'time':>7}{'never':>11}"
            f"{'s/draw':>8}  worse than random drawing"
        )
        for name, (each, num_missing, has_twin) in found.items():
            worse = ", ".join(f"{task}{'!' if task in each.surely_worse else ''}" for task in each.worse)
            compared = f"{len(each.worse)}: {worse}" if worse else "0" if has_twin else "-"
            print(
                f"{name:42}{each.repeats:8d}{each.rank:7.1f}{each.best_rank:7.1f}{each.worst:7.1f}"
                f"{each.regret:9.4f}{each.share:7.2f}{f'{each.never}/{each.compared}':>11}{each.compute:8.3f}"
                f"  {compared}{f', {num_missing} tables missing' if num_missing else ''}"
            )
        print(f"\n{'median rank':42}" + "".join(f"{_short(name):>10}" for name in names))
        ranks = median_ranks([result for result in results if result.workers == workers], "*")
        for name in found:
            print(f"{name:42}" + "".join(f"{ranks[name].get(task, math.nan):10.1f}" for task in names))


def print_markdown(results: Sequence[Result], tasks: Sequence[Task], reference: str) -> None:
    """Print the table of README.md: of each cell first the figure for one worker, then that for four."""
    columns = [
        [all_figures(results, tasks, kind, workers, reference) for workers in WORKERS] for kind in (REAL, LCBENCH)
    ]
    for name in dict.fromkeys(name for column in columns for found in column for name in found):
        repeats, cells = [], []
        for kind, column in zip((REAL, LCBENCH), columns, strict=True):
            figures = [found[name][0] for found in column if name in found and not found[name][1]]
            repeats += [each.repeats for each in figures]
            cells.append(", ".join(f"{each.rank:.3g} ({each.worst:.3g})" for each in figures))
            if kind == LCBENCH:
                cells.append(", ".join(f"{each.regret:.2f}" for each in figures))
            cells.append(", ".join(_share(each) for each in figures))
        if repeats:
            print(f"| {name} | {min(repeats)} | {' | '.join(cells)} |")


def _share(figures: Figures) -> str:
    if not figures.compared:
        return "-"
    share = "never" if math.isinf(figures.share) else f"{figures.share:.2f}"
    return f"{share} ({100 * figures.never / figures.compared:.0f} %)"


def _short(name: str) -> str:
    return name.removeprefix("imdb_").removeprefix("lcbench ").split("_bs")[0][-9:]


def print_chosen(results: Sequence[Result], pattern: str, tasks: Sequence[str]) -> None:
    """Print the setting that is chosen for each table by all the others."""
    ranks = median_ranks([result for result in results if result.task in tasks], pattern)
    print(f"\n{pattern}: chosen by all other tables{'':8}{'rank':>7}{'least':>8}")
    for task, chosen in leave_one_out(ranks).items():
        print(f"{task:42}{chosen.figure:7.1f}{chosen.best:8.1f}  {chosen.setting}")


if __name__ == "__main__":
    main()
