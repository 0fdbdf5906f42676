"""The laws of a sampler, for those that are registered and for any other: a test class inherits `SamplerLaws`."""

import json
import math
import random
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from search.samplers.base import Observation, Origin
from search.space.drawn import Drawn
from search.space.space import Space

MARKED = {
    "conditional": {
        "optimizer": {
            "$choice": [
                {"type": "SGD", "args": {"lr": {"$loguniform": [0.001, 1]}, "momentum": {"$uniform": [0, 0.9]}}},
                {"type": "SGD", "args": {"lr": {"$choice": [0.1, 0.2]}}},
                {"$choice": ["Adam", {"type": "Adam", "args": {"lr": {"$uniform": [0.1, 1]}}}]},
            ]
        }
    },
    "lists": {"x": {"$repeat": {"of": {"$logrange": [8, 64]}, "times": {"$range": [0, 4]}}}, "y": {"$choice": [1, 2]}},
    "variables": {
        "$defs": {"width": {"$range": [8, 33, 8]}, "times": {"$choice": [1, 2]}},
        "x": {"$choice": [1, {"$var": "width"}]},
        "y": {"$repeat": {"of": [{"$var": "width"}], "times": {"$var": "times"}}},
    },
    "one value": {"x": {"$choice": ["a"]}, "y": {"$range": [3]}},
    "two values": {"x": {"$choice": ["a", "b"]}},
    "equal values": {"x": {"$choice": ["a", "a", "b"]}},
    "no marker": {"x": 1},
}


class SamplerLaws:
    """Laws that hold for every sampler.

    A test class inherits them, and gives the fixture `build`: a function from a space to a sampler.
    """

    @pytest.fixture(params=MARKED)
    def space(self, request):
        return Space({"name": "s", **MARKED[request.param]}, study_seed=3)

    @pytest.fixture
    def build(self):
        raise NotImplementedError("return a function that builds the sampler for a space")

    @pytest.mark.parametrize("results", ["numbers", "several objectives", "nan", "all failed", "none yet", "mixed"])
    def test_a_search_gets_candidates_of_the_space(self, build, space, results):
        """Whatever the results are, and beyond the last candidate of a small space."""
        for _, proposal in search(build(space), space, 30, results):
            assert proposal is None or space.read(json.loads(json.dumps(proposal.as_json()))) == proposal

    def test_it_has_no_memory(self, build, space):
        """A search that is continued after each candidate, and one that asks backwards, get the same proposals."""
        calls = list(search(build(space), space, 20, "mixed"))
        kept = build(space)
        for arguments, proposal in [*reversed(calls), *calls]:
            assert drawn_of(build(space).propose(*arguments)) == proposal
            assert drawn_of(kept.propose(*arguments)) == proposal

    def test_it_changes_nothing_else(self, build, space):
        """Neither the space nor the global generators."""
        before = global_generators()
        config = space.config(space.random(0))
        list(search(build(space), space, 5, "numbers"))
        assert global_generators() == before
        assert space.config(space.random(0)) == config

    @pytest.mark.parametrize("results", ["none yet", "several objectives", "mixed"])
    def test_what_it_believes_follows_from_the_results_alone(self, build, space, results):
        """Of candidates that it was given, as finite numbers in their order; and asking it changes nothing."""
        *_, ((number, known, running), _) = search(build(space), space, 20, results)
        sampler = build(space)
        before, proposal = global_generators(), sampler.propose(number, known, running)
        beliefs = sampler.beliefs(known)
        assert global_generators() == before
        assert sampler.propose(number, known, running) == proposal
        assert build(space).beliefs(known) == beliefs
        assert beliefs.predictions.keys() <= {each.number for each in known if each.is_running}
        for each in beliefs.predictions.values():
            assert each.low <= each.mean <= each.high
            assert math.isfinite(each.high - each.low)
        assert all(0 <= share <= 1 for share in beliefs.importances.values())
        assert sum(beliefs.importances.values()) <= 1 + 1e-9

    def test_the_end_is_final(self, build, space):
        """After the last proposal there is none."""
        ended = False
        for _, proposal in search(build(space), space, 50, "numbers"):
            assert proposal is None or not ended
            ended = proposal is None

    def test_a_proposal_says_where_it_comes_from(self, build, space):
        sampler = build(space)
        for arguments, _ in search(sampler, space, 25, "numbers"):
            suggestion = sampler.propose(*arguments)
            assert suggestion is None or suggestion.origin in get_args(Origin)

    def test_candidates_without_training_and_of_another_study_are_known(self, build, space):
        """What was refused has no values; numbers below 0 are those of another study, also of all candidates."""
        others = [observed(-1 - place, space.random(40 + place), "mixed") for place in range(12)]
        others = [replace(each, is_running=False) for each in others]
        refused = [Observation(place, space.random(place), is_refused=True) for place in range(3)]
        for known in (others[::-1], refused, [*others[::-1], *refused]):
            proposal = drawn_of(build(space).propose(len(refused), known))
            assert proposal is None or space.read(proposal.as_json()) == proposal

    def test_numbers_may_have_gaps(self, build, space):
        """Candidates that others propose take numbers, too."""
        known = [Observation(4, space.random(4), ((0.5,),))]
        for number in (5, 9, 70):
            proposal = drawn_of(build(space).propose(number, known))
            assert proposal is None or space.read(proposal.as_json()) == proposal


class LearningSamplerLaws(SamplerLaws):
    """Laws of a sampler that learns from results, in addition to those of all samplers."""

    @pytest.mark.parametrize("results", ["mixed", "none yet"])
    def test_a_proposal_is_new(self, build, space, results):
        """As long as there are other candidates than those that are known, run, or were refused."""
        count = space.distinct() if space.has_markers else 0
        for (_, known, running), proposal in search(build(space), space, 30, results):
            keys = {space.key(each) for each in (*(each.drawn for each in known), *running)}
            if len(keys) < count:
                assert proposal is not None
                assert space.key(proposal) not in keys

    def test_what_was_refused_is_not_proposed(self, build, space):
        known = [Observation(place, space.random(place), is_refused=True) for place in range(25)]
        keys = {space.key(each.drawn) for each in known}
        for number in range(25, 30):
            proposal = drawn_of(build(space).propose(number, known))
            if len(keys) < space.distinct() and space.has_markers:
                assert space.key(proposal) not in keys

    def test_a_candidate_is_taken_as_soon_as_it_runs(self, build, space):
        """And when it has results."""
        sampler = build(space)
        first = drawn_of(sampler.propose(0))
        if space.distinct() > 1 and space.has_markers:
            waiting = drawn_of(sampler.propose(1, (), [first]))
            finished = drawn_of(sampler.propose(1, [Observation(0, first, ((0.5,),))]))
            assert space.key(first) not in {space.key(waiting), space.key(finished)}


def drawn_of(suggestion):
    """Return the choices of a suggestion; None if there is none."""
    return None if suggestion is None else suggestion.drawn


def global_generators():
    """Return the states of the generators that a sampler must not use."""
    return random.getstate(), str(np.random.get_state(legacy=False))


def search(sampler, space, count, results):
    """Yield the arguments of each call of a search of two workers with the answer; equal candidates are not trained."""
    known, running = [], []
    keys = set()
    for number in range(count):
        arguments = (number, tuple(known), tuple(running))
        proposal = drawn_of(sampler.propose(*arguments))
        yield arguments, proposal
        if proposal is None or space.key(proposal) in keys:
            continue
        keys.add(space.key(proposal))
        running.append(proposal)
        if len(running) == 2 and results != "none yet":
            known.append(observed(len(known), running.pop(0), results))


def observed(number, drawn: Drawn, results):
    """Return the results of a candidate, larger for later ones, by the kind of results."""
    kind = results if results != "mixed" else ("numbers", "nan", "all failed", "growing")[number % 4]
    values = {
        "numbers": ((0.1 * number,), (0.2 * number,)),
        "several objectives": ((0.1 * number, -number), (0.2 * number, -number)),
        "nan": ((math.nan,), (math.nan,)),
        "all failed": (),
        "growing": ((0.5,),),
    }[kind]
    return Observation(number, drawn, values, has_failed=kind == "all failed", is_running=kind == "growing")
