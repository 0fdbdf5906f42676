"""Which checkpoints a study deletes, and how often it asks for that."""

import math
import random

import numpy as np
import pytest

from search.results.leaderboard import ParetoFront, first_front
from search.study.cleaner import CheckpointCleaner
from utils.errors import SearchError

MB = 2**20


class Shelf:
    """Candidates whose checkpoints are files, and a scheduler that gives some of them up."""

    def __init__(self, folder, **options):
        self.folder, self.resumable, self.deleted, self.asked = folder, set(), [], 0
        self.cleaner = CheckpointCleaner(self.folder_of, self.may_resume, self.note, **options)

    def folder_of(self, candidate):
        return self.folder / f"{candidate:05d}"

    def may_resume(self, candidate):
        self.asked += 1
        return candidate in self.resumable

    def note(self, candidate, num_bytes):
        self.deleted.append((candidate, num_bytes))

    def end(self, candidate, *values, status="stopped", megabytes=1, worst=None):
        self.folder_of(candidate).mkdir(exist_ok=True)
        with open(self.folder_of(candidate) / "model_best.pth", "wb") as file:
            file.truncate(int(megabytes * MB))
        self.cleaner.ended(candidate, status, int(megabytes * MB), values, worst)
        self.cleaner.clean()

    @property
    def stored(self):
        return sorted(int(path.parent.name) for path in self.folder.glob("*/*.pth"))


def test_one_objective_retains_the_best(tmp_path):
    shelf = Shelf(tmp_path, retain=2)
    for candidate, value in enumerate([0.3, 0.7, 0.5, math.nan, 0.5, 0.6]):
        shelf.end(candidate, value)
    assert shelf.stored == [1, 5]
    assert shelf.deleted == [(0, MB), (3, MB), (4, MB), (2, MB)]  # of the equal 2 and 4 the first remains longer


def test_several_objectives_retain_the_front(tmp_path):
    shelf = Shelf(tmp_path, num_objectives=2)
    for candidate, values in enumerate([(0.9, -100), (0.8, -200), (0.7, -50), (0.9, -100), (0.85, -100), (0.5, -40)]):
        shelf.end(candidate, *map(float, values))
    assert shelf.stored == [0, 2, 3, 5]
    shelf.end(6, 0.9, -45.0)
    assert shelf.stored == [5, 6]


def test_one_that_may_be_resumed_keeps_its_checkpoint_and_pushes_nobody_out(tmp_path):
    shelf = Shelf(tmp_path)
    shelf.end(0, 0.5)
    shelf.resumable.add(1)
    shelf.end(1, 0.9, status="paused")
    assert shelf.stored == [0, 1]
    shelf.cleaner.began(1)
    shelf.end(1, 0.9, status="failed")  # the best is the other one again
    assert shelf.stored == [0]


def test_one_that_the_scheduler_gives_up_later_is_deleted(tmp_path):
    shelf = Shelf(tmp_path)
    shelf.resumable |= {0, 1}
    shelf.end(0, 0.1, status="paused")
    shelf.end(1, 0.2, status="paused")
    shelf.resumable.clear()
    shelf.end(2, 0.3)
    assert shelf.stored == [2]


def test_one_that_is_trained_again_though_it_was_given_up_is_not_deleted(tmp_path):
    shelf = Shelf(tmp_path, disk_mb=2)
    shelf.end(0, 0.9)
    shelf.end(1, 0.1)
    shelf.cleaner.began(1)
    shelf.end(2, 0.2)
    assert shelf.stored == [0, 1]


def test_a_budget_deletes_the_first_ones_until_it_is_kept(tmp_path):
    shelf = Shelf(tmp_path, disk_mb=3)
    for candidate in range(4):
        shelf.end(candidate, 0.9 - candidate / 10)
    assert shelf.stored == [0, 2, 3]
    shelf.end(4, 0.1, megabytes=1.5)
    assert shelf.stored == [0, 4]


def test_a_budget_is_kept_at_once_with_any_number_of_paused_ones(tmp_path):
    shelf = Shelf(tmp_path, disk_mb=200)
    shelf.resumable |= set(range(200))
    for candidate in range(200):
        shelf.end(candidate, 0.5, status="paused")
    shelf.resumable = {199}
    shelf.end(200, 0.4)
    assert len(shelf.stored) == 200
    shelf.end(201, 0.6, megabytes=100)  # the best: room is made by others, most of which were not asked for again
    assert len(shelf.stored) == 101


@pytest.mark.parametrize("num_objectives", [1, 2, 3])
def test_what_is_needed_is_there_in_any_history(tmp_path, num_objectives):
    chance = random.Random(num_objectives)
    shelf = Shelf(tmp_path, num_objectives=num_objectives, retain=3)
    values, running, failed = {}, set(), set()
    for _ in range(300):
        if chance.random() < 0.5 or not shelf.resumable - running:
            candidate = len(values)
            values[candidate] = tuple(float(chance.randrange(12)) for _ in range(num_objectives))
        else:
            candidate = chance.choice(sorted(shelf.resumable - running))
            shelf.cleaner.began(candidate)
            assert candidate in shelf.stored
            values[candidate] = tuple(value + chance.choice([-1, 0, 1]) for value in values[candidate])
        status = chance.choice(["paused", "paused", "stopped", "completed", "failed"])
        shelf.resumable.discard(candidate)
        if status == "paused":
            shelf.resumable.add(candidate)
        if status == "failed":
            failed.add(candidate)
        shelf.end(candidate, *values[candidate], status=status)
        if chance.random() < 0.1 and shelf.resumable:
            shelf.resumable.discard(chance.choice(sorted(shelf.resumable)))
    shelf.resumable.clear()
    shelf.cleaner.clean(thoroughly=True)
    good = [candidate for candidate in values if candidate not in failed]
    if num_objectives == 1:
        expected = sorted(good, key=lambda each: (-values[each][0], each))[:3]
    else:
        on_front = first_front(np.array([values[each] for each in good]))
        expected = [candidate for candidate, is_on in zip(good, on_front, strict=True) if is_on]
    assert shelf.stored == sorted(expected)


def test_the_scheduler_is_asked_of_a_few_at_each_event(tmp_path):
    shelf = Shelf(tmp_path)
    shelf.resumable |= set(range(1000))
    for candidate in range(1000):
        shelf.cleaner.ended(candidate, "paused", MB, (0.5,))
        shelf.cleaner.clean()
    assert shelf.asked <= 33 * 1000
    shelf.asked = 0
    small = Shelf(tmp_path, disk_mb=1)  # a budget that nothing can keep is no reason to ask of all each time
    small.resumable |= set(range(1000))
    for candidate in range(1000):
        small.cleaner.ended(candidate, "paused", MB, (0.5,))
        small.cleaner.clean()
    assert small.asked <= 33 * 1000 + 20 * 1000


@pytest.mark.parametrize("num_objectives", [2, 3])
def test_a_front_updated_one_by_one_is_that_of_all(num_objectives):
    rows = np.random.default_rng(num_objectives).integers(-9, 9, (300, num_objectives)).astype(float)
    front, members = ParetoFront(num_objectives), set()
    for candidate, row in enumerate(rows):
        members = (members | {candidate}) - set(front.add(candidate, tuple(row.tolist())))
        assert members == set(np.flatnonzero(first_front(rows[: candidate + 1])).tolist())


def test_a_file_that_cannot_be_deleted_is_named(tmp_path):
    shelf = Shelf(tmp_path)
    (tmp_path / "00000" / "stuck.pth").mkdir(parents=True)
    with pytest.raises(SearchError, match=r"stuck.pth: cannot be deleted .* continue with --resume auto"):
        shelf.end(0, math.nan)


@pytest.mark.parametrize("num_objectives", [1, 2])
def test_whoever_may_turn_out_to_be_the_best_keeps_its_checkpoint(tmp_path, num_objectives):
    chance = random.Random(num_objectives)
    shelf = Shelf(tmp_path, num_objectives=num_objectives, retain=2, is_certain=False)
    final = []
    for candidate in range(60):
        final.append(tuple(chance.randrange(30) for _ in range(num_objectives)))
        up, down = chance.randrange(4), chance.randrange(4)
        best, *rest = final[-1]
        shelf.end(candidate, best + up, *rest, worst=(best - down, *rest))
    front = first_front(np.array(final, dtype=float)) if num_objectives > 1 else None
    needed = sorted(range(60), key=lambda each: (final[each], -each))[-2:] if front is None else np.flatnonzero(front)
    assert set(needed) <= set(shelf.stored)
    assert len(shelf.stored) < 30
