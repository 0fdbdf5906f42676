"""Which of the predicted cells of a generation are trained."""

from types import SimpleNamespace

import numpy as np
import pytest

from search.results.record import parse_objectives
from search.strategies.popnas.choice import choose
from search.strategies.popnas.estimates import Answer, Request, Trained
from search.strategies.popnas.options import GrowthOptions
from utils.architecture.cells.grammar import Grammar

GRAMMAR = Grammar(("identity", "3x3 conv", "3x3 maxpool"), lookbacks=1, blocks=2)
EXPANSION = GRAMMAR.expand([GRAMMAR.empty])
CELLS = EXPANSION.texts()  # six
SCORES = [0.9, 0.8, 0.7, 0.85, 0.5, 0.6]
SECONDS = [9.0, 5.0, 6.0, 7.0, 1.0, 8.0]
FRONT = [0, 3, 1, 4]  # the best score first


def chosen(*, is_last=False, trained=(), scores=SCORES, seconds=SECONDS, most_params=None, **growth):
    """The places of the chosen cells by their reason; trained ones are given by score and seconds.

    With a limit, the parameters of a cell are ten for each that follows it.
    """
    known = [
        Trained(number, CELLS[0], {"val_accuracy": score, "training_time": spent}, 3)
        for number, (score, spent) in enumerate(trained)
    ]
    goals = parse_objectives(["max val_accuracy", "min training_time"])
    request = Request(2, 1, EXPANSION, known, (), (), goals, 3, 0)
    means = {"val_accuracy": np.array(scores), "training_time": np.array(seconds)}
    answer = Answer(means, {}, {}, {"params": 10.0 * np.arange(len(CELLS))[::-1]})
    limits = None if most_params is None else {"max_params": most_params}
    options = GrowthOptions(**{"max_exploration": 0, "max_children": 5, **growth})
    found = choose(request, answer, options, SimpleNamespace(limits=limits, constraints=()), is_last=is_last)
    places = {}
    for each in found:
        places.setdefault(each.reason, []).append(CELLS.index(each.cell))
    return places


def test_the_places_that_the_front_leaves_go_to_the_best_scores():
    assert chosen() == {"front": FRONT, "score": [2]}
    assert chosen(max_children=4) == {"front": FRONT}
    assert chosen(max_children=2) == {"front": FRONT[:2]}
    assert chosen(max_children=9) == {"front": FRONT, "score": [2, 5]}, "there are no more"


def test_the_front_alone_may_be_trained_or_a_number_of_the_best_scores_next_to_it():
    assert chosen(max_best=0) == {"front": FRONT}
    assert chosen(max_best=1, max_children=2) == {"front": [0, 3], "score": [1]}


def test_a_front_of_one_does_not_starve_the_next_generation():
    """All parents are alike for a trivial predictor, whose front is then the cheapest cell alone."""
    found = chosen(scores=[0.5] * 6, seconds=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], max_children=4)
    assert found["front"] == [0]
    assert len(found["score"]) == 3


@pytest.mark.parametrize(
    ("trained", "front"),
    [
        ([], FRONT),
        ([(0.86, 6.5)], [0, 1, 4]),  # dominates the cell of .85 in 7 s
        ([(0.95, 0.5)], []),
        ([(0.85, 7.0)], FRONT),  # an equal one dominates nothing
        ([(float("nan"), 0.1), (0.5, 0.5)], [0, 3, 1]),  # without a score it dominates nothing
    ],
)
def test_a_complete_cell_that_a_trained_one_dominates_is_not_on_the_front(trained, front):
    found = chosen(is_last=True, trained=trained, max_best=0)
    assert found.get("front", []) == front


def test_cells_that_grow_further_are_compared_with_each_other_alone():
    assert chosen(trained=[(0.95, 0.5)], max_best=0) == {"front": FRONT}


def test_if_trained_cells_dominate_all_the_best_scores_are_trained():
    assert chosen(is_last=True, trained=[(0.95, 0.5)], max_children=3) == {"score": [0, 3, 1]}


def lone(place):
    """Scores and seconds of which the best score is that of one cell; of the others, a lower one takes less time."""
    scores = [0.9 if each == place else 0.5 - each / 100 for each in range(len(CELLS))]
    return {"scores": scores, "seconds": scores, "max_children": 1, "max_best": 0, "max_exploration": 2}


IDENTITY = CELLS.index("[(-1, 'identity', -1, 'identity')]")
WITHOUT = [place for place, text in enumerate(CELLS) if "identity" not in text]  # two rare operations: enough points


def test_cells_with_operations_that_the_front_lacks_are_explored():
    found = chosen(**lone(IDENTITY))
    assert found == {"front": [IDENTITY], "exploration": WITHOUT[:2]}


@pytest.mark.parametrize(("most_params", "explored"), [(None, [0, 1]), (40, [1, 2]), (30, [2]), (20, [])])
def test_a_cell_that_breaks_a_limit_is_not_explored(most_params, explored):
    """What is left has other places than all cells: the limit leaves out the first ones."""
    assert chosen(**lone(5), most_params=most_params).get("exploration", []) == explored


@pytest.mark.parametrize("mode", [{"is_last": True}, {"pnas_mode": True}, {"max_exploration": 0}])
def test_nothing_is_explored_among_complete_cells_or_by_the_score_alone(mode):
    assert "exploration" in chosen(**lone(IDENTITY))
    assert set(chosen(**lone(IDENTITY) | mode)) == {"front"}
