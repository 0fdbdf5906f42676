"""What the splits of a data set show together: copies across splits, classes that are missing or rare."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from base.class_weights import class_weights
from data_loader.checking.copies import near_copies
from data_loader.checking.facts import SplitFacts
from utils.findings import Finding

IMBALANCE = 20
"""Ratio of the largest to the smallest class from which weights are suggested."""

_NAMES_SHOWN = 3
_ALL_ALIKE = " If all images of this kind look alike, as X-rays from one machine do, this means nothing."


class ClassRow(NamedTuple):
    """A class in the table of a check.

    Attributes:
        name: Its name, or class_0 and so on.
        shares: Name of the split -> its fraction of the labels that count; None if the split has none.
        weight: Suggested weight in the loss, by the rule "balanced"; None if the training data does not show the class.
    """

    name: str
    shares: Mapping[str, float | None]
    weight: float | None


def class_balance(facts: Mapping[str, SplitFacts]) -> list[ClassRow]:
    """Return a row for each class, in the order of their ids; empty if classes cannot be counted.

    Args:
        facts: Name of the split (train, valid, test) -> its facts; weights follow from the first one.
    """
    counted = {split: each for split, each in facts.items() if each.class_counts}
    if not counted:
        return []
    first = next(iter(counted.values()))
    weights = suggested_weights(first.class_counts)
    rows = []
    for number, name in enumerate(_class_names(first)):
        shares = {split: _share(each, number) for split, each in counted.items()}
        rows.append(ClassRow(name, shares, weights[number]))
    return rows


def suggested_weights(class_counts: Sequence[int]) -> list[float | None]:
    """Return the weight of each class by the rule "balanced", in which a class without labels takes no part."""
    shown = [count for count in class_counts if count]
    weights = iter(class_weights("balanced", shown) if shown else ())
    return [next(weights) if count else None for count in class_counts]


def compare_splits(facts: Mapping[str, SplitFacts], is_overfit: bool = False) -> list[Finding]:
    """Return the warnings that splits show together; none of them stops a training.

    Args:
        facts: Name of the split (train, valid, test) -> its facts, the training data first.
        is_overfit: Validation repeats the training samples on purpose: copies across splits are then no finding.
    """
    splits = list(facts.values())
    warnings = [warning for each in splits for warning in _repeated_samples(each)]
    if not is_overfit:
        for one, other in combinations(splits, 2):
            warnings += [*_shared_samples(one, other), *_near_copies(one, other)]
    return warnings + list(_class_warnings(splits))


def _warning(place: str, message: str) -> Finding:
    return Finding("data", place, message, is_fault=False)


def _repeated_samples(facts: SplitFacts) -> Iterator[Finding]:
    """Warn of samples with the same input, with the same target or with another one."""
    order = np.argsort(facts.digests, kind="stable")
    same = np.flatnonzero(facts.digests[order][1:] == facts.digests[order][:-1])
    pairs = [(int(order[place]), int(order[place + 1])) for place in same]
    agreeing = [pair for pair in pairs if facts.target_digests[pair[0]] == facts.target_digests[pair[1]]]
    differing = [pair for pair in pairs if facts.target_digests[pair[0]] != facts.target_digests[pair[1]]]
    if agreeing:
        yield _warning(
            facts.section,
            f"{_count(agreeing)} twice with the same content: {_shown(facts, facts, agreeing)}. A copy counts double. "
            "Remove the copies.",
        )
    if differing:
        yield _warning(
            facts.section,
            f"{_count(differing)} twice with the same content but different labels: {_shown(facts, facts, differing)}. "
            "One of the labels is wrong, or a mask was stored under another image's name. Correct or remove them.",
        )


def _shared_samples(one: SplitFacts, other: SplitFacts) -> Iterator[Finding]:
    """Warn of samples that are in two splits."""
    _, first, second = np.intersect1d(one.digests, other.digests, return_indices=True)
    pairs = [(int(left), int(right)) for left, right in zip(first, second, strict=True)]
    if pairs:
        count = int(np.isin(other.digests, one.digests).sum())
        yield _warning(
            other.section,
            f"{count} of {other.num_readable} samples are in {one.section}, too: {_shown(one, other, pairs)}. Results "
            "on them say nothing about new data. Take them out of one of the two.",
        )


def _near_copies(one: SplitFacts, other: SplitFacts) -> Iterator[Finding]:
    """Warn of images in two splits that look alike."""
    pairs = near_copies(one, other)
    if pairs:
        yield _warning(
            other.section,
            f"{len(pairs)} of {other.num_readable} images look like one of {one.section}: "
            f"{_shown(one, other, pairs, ' ~ ')}. They may be frames of one video, or copies that were cut, scaled or "
            "compressed anew. Results on them are better than on new scenes. Leave such images in one split."
            + (_ALL_ALIKE if 2 * len(pairs) > other.num_readable else ""),
        )


def _class_warnings(splits: Sequence[SplitFacts]) -> Iterator[Finding]:
    """Warn of classes that no split shows, that one lacks, and of strong imbalance."""
    counted = [each for each in splits if each.class_counts and sum(each.class_counts)]
    if not counted:
        return
    names = _class_names(counted[0])
    totals = np.array([each.class_counts for each in counted]).sum(axis=0)
    nowhere = [names[number] for number in np.flatnonzero(totals == 0)]
    if nowhere:
        sections = ", ".join(each.section for each in counted)
        yield _warning(
            sections,
            f"No label of {', '.join(nowhere)} in any split. A network cannot learn it. Correct "
            "the classes, or add samples that show it.",
        )
    for each in counted:
        lacking = [names[k] for k in np.flatnonzero((np.array(each.class_counts) == 0) & (totals > 0))]
        if lacking:
            others = ", ".join(other.section for other in counted if other is not each)
            yield _warning(
                each.section,
                f"No label of {', '.join(lacking)}, which {others} has. "
                + (
                    "A network cannot learn it. Add samples that show it."
                    if each is splits[0]
                    else "Its result there is empty and left out of means. Add samples that show it."
                ),
            )
    train = counted[0]
    shown = [count for count in train.class_counts if count]
    if max(shown) >= IMBALANCE * min(shown):
        rare, frequent = (train.class_counts.index(pick(shown)) for pick in (min, max))
        weights = ", ".join("-" if each is None else f"{each:.3g}" for each in suggested_weights(train.class_counts))
        yield _warning(
            train.section,
            f"Classes are from {names[rare]} ({_percent(train, rare)}) to {names[frequent]} "
            f'({_percent(train, frequent)}) of the labels. A "weight" of the loss balances them: "balanced" would be '
            f'[{weights}]; "log" and "bounded" are milder.',
        )


def _class_names(facts: SplitFacts) -> list[str]:
    names = list(facts.class_names)
    return names if len(names) == len(facts.class_counts) else [f"class_{k}" for k in range(len(facts.class_counts))]


def _share(facts: SplitFacts, number: int) -> float | None:
    total = sum(facts.class_counts)
    return facts.class_counts[number] / total if total else None


def _percent(facts: SplitFacts, number: int) -> str:
    return f"{100 * (_share(facts, number) or 0.0):.2g} %"


def _count(pairs: Sequence[tuple[int, int]]) -> str:
    return "1 sample is there" if len(pairs) == 1 else f"{len(pairs)} samples are there"


def _shown(one: SplitFacts, other: SplitFacts, pairs: Sequence[tuple[int, int]], sign: str = " = ") -> str:
    """Return the first few pairs of names."""
    listed = [f"{one.names[left]}{sign}{other.names[right]}" for left, right in pairs[:_NAMES_SHOWN]]
    return ", ".join(listed) + (", ..." if len(pairs) > _NAMES_SHOWN else "")
