"""The benchmark of simulated searches: its file, its figures, and the peers behind our contracts."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.peer_schedulers import OptunaPeer, Peer, Rows
from benchmarks.popnas_nasbench import interval
from benchmarks.search_contenders import Contender, contenders, described
from benchmarks.search_simulation import search
from benchmarks.search_tasks import REAL, Task
from benchmarks.simulation_results import Result, ResultFile, figures_of, leave_one_out, median_ranks
from benchmarks.simulator import simulate
from benchmarks.two_objectives import FrontTask, front_samplers
from search.schedulers.base import Decision, Job
from search.schedulers.halving import RandomSearch
from search.space.table_space import TableSpace
from search.tables.table import ResultTable

RESULT = Result("a", "one", 4, 0, 3, 0.5, 2, 0.25, 0.9, 450, 112.0, 80, 0.125, ((1.0, 0.3), (56.0, 0.9)))


@pytest.fixture
def task() -> Task:
    """Sixty settings of two numbers, trained for nine epochs; the best is at (0.3, 0.7), those with x > 0.9 diverge."""
    x, y = np.random.default_rng(0).random((2, 60))
    final = -((x - 0.3) ** 2) - (y - 0.7) ** 2
    curves = final[:, None] - 1.0 / np.arange(1, 10)
    curves[x > 0.9, 2:] = np.nan
    table = ResultTable.of({"value": curves}, settings={"x": x.tolist(), "y": y.tolist()})
    return Task("bowl", REAL, table, TableSpace({}, table.settings), np.where(x > 0.9, -np.inf, curves[:, -1]))


def test_a_file_is_continued_after_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "results.csv"
    file = ResultFile(path)
    diverged = replace(RESULT, seed=1, regret=math.inf)
    for result in (RESULT, diverged, replace(RESULT, seed=2)):
        file.add(result)
    assert ResultFile(path).results == file.results
    path.write_text(path.read_text()[:-4])
    again = ResultFile(path)
    assert [key.seed for key in again.results] == [0, 1]
    again.add(replace(RESULT, seed=2))
    assert ResultFile(path).results == file.results


@pytest.mark.parametrize("length", range(20, 120, 7))
def test_no_part_of_a_line_is_read(tmp_path, length):
    path = tmp_path / "results.csv"
    ResultFile(path).add(RESULT)
    head, line, _ = path.read_text().split("\n")
    path.write_text(f"{head}\n{line[:length]}")
    assert (not ResultFile(path).results) == (length < len(line))


def test_figures_of_two_tables():
    def runs(task, ranks, regrets, times):
        return [
            replace(RESULT, task=task, seed=seed, rank=rank, regret=regret, steps=((1.0, 0.1), (time, 0.9)))
            for seed, (rank, regret, time) in enumerate(zip(ranks, regrets, times, strict=True))
        ]

    own = {
        "one": runs("one", [1, 5], [0.0, 2.0], [28.0, 56.0]),
        "two": runs("two", [3, 9], [1.0, math.inf], [84.0, 9.0]),
    }
    own["two"][1] = replace(own["two"][1], steps=((9.0, 0.8),))
    reference = {"one": runs("one", [9, 9], [9.0, 9.0], [1.0, 1.0]), "two": runs("two", [9, 9], [9.0, 9.0], [1.0, 1.0])}
    twin = {"one": runs("one", [2, 2], [0.5, 2.5], [1.0, 1.0]), "two": runs("two", [2, 2], [0.5, 1.5], [1.0, 1.0])}
    figures = figures_of(own, reference, twin, {"one": 4.0, "two": 4.0})
    assert (figures.repeats, figures.rank, figures.worst) == (2, 4.0, 6.0)
    assert figures.regret == (1.0 + 2.5) / 2  # the one that diverged counts 4
    assert figures.share == (0.5 + 0.75) / 2  # of .25, .5, .75 and never
    assert (figures.never, figures.compared) == (1, 4)
    assert figures.worse == ("two",)
    assert figures.surely_worse == ()  # +.5 and +2.5: a mean of 1.5 with a standard error of 1


def test_a_setting_is_chosen_by_the_other_tables():
    figures = {"x": {"1": 1.0, "2": 8.0, "3": 2.0}, "y": {"1": 4.0, "2": 3.0, "3": 4.0}, "z": {"1": 0.1, "2": 0.1}}
    chosen = leave_one_out(figures)
    assert chosen["1"] == ("y", 4.0, 1.0)  # 3 x 4 is less than 8 x 2
    assert chosen["2"] == ("x", 8.0, 3.0)
    assert chosen["3"] == ("x", 2.0, 2.0)  # 1 x 8 is less than 4 x 3
    assert leave_one_out({}) == {}


def test_median_ranks_of_a_pattern():
    results = [replace(RESULT, rank=rank, seed=rank, contender=name) for name in ("ab", "b") for rank in (1, 2, 9)]
    assert median_ranks(results, "a*") == {"ab": {"one": 2.0}}


def test_ranks_count_the_better_ones_and_put_the_diverged_last(task):
    task = replace(task, final=np.array([0.5, -np.inf, 0.7, 0.5, 0.1]))
    assert task.ranks.tolist() == [2, 5, 1, 2, 4]
    assert task.regrets.tolist() == pytest.approx([0.2, math.inf, 0.0, 0.2, 0.6])


@pytest.mark.parametrize(
    "name", ["full+random", "promote-1+random", 'ASHA:{"grace_period": 2}+random', "halving+random"]
)
@pytest.mark.parametrize("workers", [1, 4])
def test_a_search_costs_its_budget_and_is_repeated_exactly(task, name, workers):
    contender = contenders([name])[0]
    first, again = search(contender, task, workers, 3), search(contender, task, workers, 3)
    assert replace(first, compute=0) == replace(again, compute=0)
    assert first.epochs <= task.budget
    assert first.epochs == task.budget or name.startswith("halving")
    assert first.regret == pytest.approx(np.sort(task.final)[-1] - np.sort(task.final)[-first.rank])
    assert [value for _, value in first.steps] == sorted(value for _, value in first.steps)


def test_all_that_draw_at_random_draw_the_same_order(task):
    drawn = []
    for name in ("full+random", "promote-1+random", "stop-1+random"):
        scheduler, sampler = contenders([name])[0].make(task, 5)
        found = simulate(scheduler, task.table, sampler=sampler, workers=4, budget=task.budget)
        drawn.append([found.settings[number] for number in sorted(found.settings)])
    shortest = min(map(len, drawn))
    assert drawn[0][:shortest] == drawn[1][:shortest] == drawn[2][:shortest]


def test_a_contender_is_described_by_scheduler_and_sampler():
    made = described('ASHA:{"mode": "promote"}+sobol')
    assert (made.twin, made.is_model) == ('ASHA:{"mode": "promote"}+random', True)
    assert [each.name for each in contenders(["promote-?+random"])] == ["promote-1+random", "promote-3+random"]
    with pytest.raises(SystemExit, match=r"nothing: no such contender. Write SCHEDULER\+SAMPLER"):
        contenders(["nothing"])
    with pytest.raises(SystemExit, match="arguments that are not JSON"):
        contenders(["ASHA:{+random"])


class Halves(Peer):
    """Proposes the middle of the cube again and again, pauses after an epoch, and continues every second candidate."""

    def __init__(self, space: TableSpace) -> None:
        super().__init__(9, space)
        self.values: list[tuple[int, int, float]] = []
        self.paused: list[int] = []
        self.num_failed = 0

    def next_trial(self):
        if len(self.paused) >= 2:
            candidate = self.paused.pop()
            self.paused.clear()
            return Job(candidate, 1, 9)
        return object(), 1

    def proposed_row(self, trial):
        return self.rows.nearest([0.5, 0.5])

    def told(self, candidate, epoch, value):
        self.values.append((candidate, epoch, value))
        if epoch == 1:
            self.paused.append(candidate)
        return Decision.PAUSE if epoch == 1 else Decision.CONTINUE

    def failed(self, candidate):
        self.num_failed += 1


def test_a_peer_gets_every_row_once_and_a_bad_value_for_what_diverged(task):
    peer = Halves(task.space)
    found = simulate(peer, task.table, sampler=peer, budget=10_000)
    rows = list(found.settings.values())
    assert sorted(rows) == list(range(60))
    assert rows[0] == np.argmin(((task.space.listed_vectors[0] - 0.5) ** 2).sum(axis=1))
    assert set(found.origins.values()) == {"model"}
    last_told = {candidate: value for candidate, _, value in peer.values}
    diverged = [epoch.candidate for epoch in found.trace if math.isnan(epoch.value)]
    assert diverged
    assert peer.num_failed == len(diverged)
    for candidate in diverged:
        place = peer.values.index((candidate, 3, last_told[candidate]))
        assert last_told[candidate] == min(value for _, _, value in peer.values[:place])


def test_the_nearest_free_row(task):
    rows = Rows(task.space)
    first = rows.nearest([0.2, 0.2])
    rows.take(first)
    assert rows.nearest([0.2, 0.2]) != first
    assert rows.nearest(rows.points[first]) != first


@pytest.mark.parametrize("sampler", ["RandomSampler", "TPESampler"])
@pytest.mark.parametrize("hyperband", [False, True])
def test_optuna_trains_rows_and_learns_from_them(task, sampler, hyperband):
    pytest.importorskip("optuna")

    def make(task, seed):
        peer = OptunaPeer(9, task.space.reseeded(seed), seed=seed, sampler=sampler, hyperband=hyperband)
        return peer, peer

    peer, _ = make(task, 1)
    found = simulate(peer, task.table, sampler=peer, workers=4, budget=task.budget)
    assert len(set(found.settings.values())) == len(found.settings)
    space = task.space.reseeded(1)
    assert [found.settings[number] for number in range(9)] == [space.row(space.random(number)) for number in range(9)]
    for number, row in found.settings.items():
        assert peer.trials[number].params == peer.rows.named(row)
    results = [search(Contender("optuna", make), task, 4, seed) for seed in (1, 1, 2)]
    assert replace(results[0], compute=0) == replace(results[1], compute=0)
    assert results[0].epochs == task.budget
    assert results[0].steps != results[2].steps


@pytest.fixture
def front(tmp_path) -> FrontTask:
    """Sixty-four cells: a convolution gives accuracy, on each edge half that of the last one, and takes 10 seconds."""
    cells = list(itertools.product(["none", "conv"], repeat=6))
    edges = [
        [f"{operation}~{place}" for operation, place in zip(cell, (0, 0, 1, 0, 1, 2), strict=True)] for cell in cells
    ]
    chosen = np.array(cells) == "conv"
    accuracy = 40.0 + (chosen * [16.0, 8.0, 4.0, 2.0, 1.0, 0.5]).sum(axis=1)
    path = tmp_path / "cells.npz"
    np.savez(
        path,
        arch=[f"|{a}|+|{b}|{c}|+|{d}|{e}|{f}|" for a, b, c, d, e, f in edges],
        val_acc_200ep=np.stack([accuracy - 1, accuracy + 1, np.full(64, np.nan)], axis=1),
        train_time_s_200ep=10.0 + 10.0 * chosen.sum(axis=1),
    )
    return FrontTask(path)


def test_the_share_of_the_hypervolume(front):
    assert front.share(range(64)) == 1
    # The front above 50 %: n convolutions on the first edges, at 10 + 10 n of at most 70 seconds; 71.5 % is the best.
    heights = [6, 14, 18, 20, 21]  # above 50 %, with 1 to 5 convolutions; 6 are at the reference's time
    full = sum(height * 10 for height in heights)
    two = [number for number, row in enumerate(front.table.settings["edge0"]) if row == "conv"]
    cell = next(
        n for n in two if [front.table.settings[f"edge{e}"][n] for e in range(6)] == ["conv"] * 2 + ["none"] * 4
    )
    assert front.share([cell]) == pytest.approx(14 * 40 / full)


@pytest.mark.parametrize("name", ["random", "evolution", "Optuna NSGAIISampler"])
def test_a_hundred_trainings_of_different_cells(front, name):
    if name.startswith("Optuna"):
        pytest.importorskip("optuna")
    make = front_samplers([name])[name]
    first, again = front.search(name, make, 1), front.search(name, make, 1)
    assert replace(first, compute=0, regret=0, best_regret=0) == replace(again, compute=0, regret=0, best_regret=0)
    assert first.draws == first.epochs == 64  # there are no more
    assert first.value == 1
    assert [count for count, _ in first.steps] == [25, 50, 75, 100]


@pytest.mark.parametrize("name", ["evolution", "Optuna TPESampler"])
def test_a_sampler_that_is_told_the_accuracy_alone(front, name):
    if name.startswith("Optuna"):
        pytest.importorskip("optuna")
    sampler = front_samplers([name], 1)[name](front.space.reseeded(1), front.table)
    found = simulate(RandomSearch(8, 1), front.table, sampler=sampler, objectives=["max accuracy"])
    assert len({epoch.setting for epoch in found.trace}) == 8


def test_the_interval_of_a_mean():
    low, high = interval([0.0, 1.0] * 50)
    assert (low, high) == (pytest.approx(0.4, abs=0.01), pytest.approx(0.6, abs=0.01))
    assert interval([2.0, 2.0]) == (2.0, 2.0)
