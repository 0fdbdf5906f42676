"""The beliefs of a sampler and the origins of candidates, as they are shown to the user."""

import math
from collections import Counter
from collections.abc import Container, Iterable

from search.results.leaderboard import COUNTED
from search.results.record import CandidateRecord, without_penalty
from search.samplers.base import Beliefs, PredictedValue

ORIGIN_WORDS = {"random": "random", "model": "modelled", "enqueued": "enqueued"}


def beliefs_shown(beliefs: Beliefs, sign: int, running: Container[int]) -> Beliefs:
    """Return beliefs with values in their original sign, the most important marker first.

    Predictions that are not finite, or that only say how much constraints are violated, are left out.

    Args:
        beliefs: Of a sampler.
        sign: Of the objective that they are of.
        running: Candidates whose predictions are shown.

    Raises:
        AttributeError, TypeError, ValueError: They are malformed.
    """
    predictions = {}
    for number, each in beliefs.predictions.items():
        values = [float(value) for value in (each.mean, each.low, each.high)]
        if number in running and all(math.isfinite(without_penalty(value)) for value in values):
            mean, low, high = (value * sign + 0.0 for value in values)  # no -0.0
            predictions[number] = PredictedValue(mean, min(low, high), max(low, high))
    known = {str(path): float(share) for path, share in beliefs.importances.items()}
    shares = {path: max(0.0, share) for path, share in known.items() if math.isfinite(share)}
    total = max(1.0, sum(shares.values()))  # estimates of shares can be more than all
    shares = {path: share / total for path, share in shares.items()}
    return Beliefs(predictions, dict(sorted(shares.items(), key=lambda item: -item[1])))


def origin_counts(candidates: Iterable[CandidateRecord]) -> dict[str, int]:
    """Return the number of candidates of each origin in words, of those that count; empty if the journal says none.

    Children of population based training are left out: they come from no sampler.
    """
    origins = Counter(each.origin for each in candidates if each.status in COUNTED and not each.inherited)
    if not any(origins):  # the study was begun by an earlier version
        return {}
    words = {**ORIGIN_WORDS, "": "unknown"}
    return {word: origins[origin] for origin, word in words.items() if origins[origin]}
