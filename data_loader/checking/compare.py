"""Warnings that the splits of a data set show together: copies across splits, and classes that are missing or rare."""

from collections.abc import Mapping

from data_loader.checking.facts import SplitFacts
from utils.findings import Finding


def compare_splits(facts: Mapping[str, SplitFacts], is_overfit: bool = False) -> list[Finding]:
    """Return the warnings that splits show together.

    Args:
        facts: Name of the split (train, valid, test) -> its facts.
        is_overfit: Validation repeats the training samples on purpose: copies are then no finding.
    """
    return []
