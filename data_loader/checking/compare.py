"""Findings of several splits together: copies across splits, classes that are missing or rare."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from base.class_weights import class_weights
from data_loader.checking.copies import near_copies
from data_loader.checking.facts import SplitFacts
from utils.errors import Finding

IMBALANCE = 20
"""Ratio of the largest to the smallest class from which weights are suggested."""

_NAMES_SHOWN = 3
_CLASSES_SHOWN = 12
_WEIGHTS_SHOWN = 40
_ALL_ALIKE = " If all images of this kind look alike, as X-rays from one machine do, this means nothing."


class ClassRow(NamedTuple):
    """A class in the table of a check.

    Attributes:
        name: Its name, or class_0 and so on.
        shares: Name of the split -> its fraction of the labels that count; None if the split has none.
        weight: Suggested weight in the loss, by the rule "balanced"; None if it is ignored, or the training
            data does not show it.
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
    """Return the weight of each class by the rule "balanced"; None of one without labels, as of an ignored one."""
    shown = [count for count in class_counts if count]
    weights = iter(class_weights("balanced", shown) if shown else ())
    return [next(weights) if count else None for count in class_counts]


def compare_splits(facts: Mapping[str, SplitFacts], is_overfit: bool = False) -> list[Finding]:
    """Return the warnings that splits show together; none of them stops a training.

    Args:
        facts: Name of the split (train, valid, test) -> its facts.
        is_overfit: Validation repeats the training samples on purpose: copies across splits are then no finding.
    """
    warnings = [warning for split, each in facts.items() for warning in _repeated_samples(split, each)]
    if not is_overfit:
        for one, other in combinations(facts, 2):
            warnings += [*_shared_samples(facts, one, other), *_near_copies(facts, one, other)]
    counted = {split: each for split, each in facts.items() if each.class_counts and sum(each.class_counts)}
    sizes = {len(each.class_counts) for each in counted.values()}
    if len(sizes) == 1:  # otherwise the config is at fault
        warnings += _missing_classes(counted)
    if "train" in counted:
        warnings += _imbalance(counted["train"])
    return warnings


def _warning(place: str, message: str) -> Finding:
    return Finding("data", place, message, is_fault=False)


def _repeated_samples(split: str, facts: SplitFacts) -> Iterator[Finding]:
    """Warn of samples with the same input, with the same target or with another one."""
    order = np.argsort(facts.digests, kind="stable")
    same = np.flatnonzero(facts.digests[order][1:] == facts.digests[order][:-1])
    pairs = sorted((int(order[place]), int(order[place + 1])) for place in same)
    agreeing = [pair for pair in pairs if facts.target_digests[pair[0]] == facts.target_digests[pair[1]]]
    differing = [pair for pair in pairs if facts.target_digests[pair[0]] != facts.target_digests[pair[1]]]
    if agreeing:
        yield _warning(
            facts.section,
            f"{_count(agreeing, split)} twice with the same content: {_shown(facts, facts, agreeing)}. A copy counts "
            "double. Remove the copies.",
        )
    if differing:
        yield _warning(
            facts.section,
            f"{_count(differing, split)} twice with the same content but different labels: "
            f"{_shown(facts, facts, differing)}. One of the labels is wrong, or a mask was stored under another "
            "image's name. Correct or remove them.",
        )


def _shared_samples(facts: Mapping[str, SplitFacts], first: str, second: str) -> Iterator[Finding]:
    """Warn of samples that are in two splits."""
    one, other = facts[first], facts[second]
    _, lefts, rights = np.intersect1d(one.digests, other.digests, return_indices=True)
    pairs = sorted(zip(lefts.tolist(), rights.tolist(), strict=True), key=lambda pair: pair[1])
    if pairs:
        count = int(np.isin(other.digests, one.digests).sum())
        yield _warning(
            other.section,
            f"{count} of {other.num_readable} {second} samples are {first} samples, too: {_shown(one, other, pairs)}. "
            "Results on them say nothing about new data. Take them out of one of the two.",
        )


def _near_copies(facts: Mapping[str, SplitFacts], first: str, second: str) -> Iterator[Finding]:
    """Warn of images in two splits that look alike."""
    one, other = facts[first], facts[second]
    pairs = near_copies(one, other)
    if pairs:
        yield _warning(
            other.section,
            f"{len(pairs)} of {other.num_readable} {second} images look like one of {first}: "
            f"{_shown(one, other, pairs, ' ~ ')}. They may be frames of one video, or copies that were cut, scaled or "
            "compressed anew. Results on them are better than on new scenes. Leave such images in one split."
            + (_ALL_ALIKE if 2 * len(pairs) > other.num_readable else ""),
        )


def _missing_classes(facts: Mapping[str, SplitFacts]) -> Iterator[Finding]:
    """Warn of classes that no split shows, and of those that one lacks."""
    splits = list(facts.values())
    names, ignored = _class_names(splits[0]), splits[0].ignore_index
    totals = np.array([each.class_counts for each in splits]).sum(axis=0)
    nowhere = [number for number in np.flatnonzero(totals == 0).tolist() if number != ignored]
    if nowhere:
        yield _warning(
            ", ".join(dict.fromkeys(each.section for each in splits)),
            f"No label of {_listed(names, nowhere)} in any split. A network cannot learn it. Correct the classes, or "
            "add samples that show it.",
        )
    for split, each in facts.items():
        lacking = np.flatnonzero((np.array(each.class_counts) == 0) & (totals > 0)).tolist()
        if lacking:
            effect = (
                "A network cannot learn it." if split == "train" else "Its result there is empty and left out of means."
            )
            yield _warning(
                each.section,
                f"No {split} label of {_listed(names, lacking)}, which other splits show. {effect} Add samples that "
                "show it.",
            )


def _imbalance(train: SplitFacts) -> Iterator[Finding]:
    """Warn of a strong imbalance of the classes in the training data."""
    names, shown = _class_names(train), [count for count in train.class_counts if count]
    if max(shown) < IMBALANCE * min(shown):
        return
    rare, frequent = (train.class_counts.index(pick(shown)) for pick in (min, max))
    weights = ["-" if each is None else f"{each:.3g}" for each in suggested_weights(train.class_counts)]
    would_be = f" would be [{', '.join(weights)}]" if len(weights) <= _WEIGHTS_SHOWN else ""
    absent = [number for number, count in enumerate(train.class_counts) if not count and number != train.ignore_index]
    rules = f'"balanced"{would_be}; "log" and "bounded" are milder'
    if absent:
        rules = f'"log" or "bounded" ("balanced" needs a label of {_listed(names, absent)}, too)'
    yield _warning(
        train.section,
        f"Classes are from {names[rare]} ({_percent(train, rare)}) to {names[frequent]} ({_percent(train, frequent)}) "
        f'of the labels. A "weight" of the loss balances them: {rules}.',
    )


def _listed(names: Sequence[str], numbers: Sequence[int]) -> str:
    return ", ".join(names[number] for number in numbers[:_CLASSES_SHOWN]) + (
        f" and {len(numbers) - _CLASSES_SHOWN} more" if len(numbers) > _CLASSES_SHOWN else ""
    )


def _class_names(facts: SplitFacts) -> list[str]:
    names = list(facts.class_names)
    return names if len(names) == len(facts.class_counts) else [f"class_{k}" for k in range(len(facts.class_counts))]


def _share(facts: SplitFacts, number: int) -> float | None:
    total = sum(facts.class_counts)
    return facts.class_counts[number] / total if total else None


def _percent(facts: SplitFacts, number: int) -> str:
    return f"{100 * (_share(facts, number) or 0.0):.2g} %"


def _count(pairs: Sequence[tuple[int, int]], split: str) -> str:
    return f"1 {split} sample is there" if len(pairs) == 1 else f"{len(pairs)} {split} samples are there"


def _shown(one: SplitFacts, other: SplitFacts, pairs: Sequence[tuple[int, int]], sign: str = " = ") -> str:
    """Return the first few pairs of names."""
    named = [(one.names[left], other.names[right]) for left, right in pairs[:_NAMES_SHOWN]]
    listed = [first if first == second else f"{first}{sign}{second}" for first, second in named]
    return ", ".join(listed) + (", ..." if len(pairs) > _NAMES_SHOWN else "")
