"""Who hears of a study's events while it runs: the terminal, TensorBoard, a log of what is drawn."""

import logging
from pathlib import Path
from typing import Protocol

from search.journal import Event, Kind
from search.state import StudyState
from search.study import Plan

logger = logging.getLogger("espalier")


class Watching(Protocol):
    """Hears of events."""

    def watch(self, event: Event, state: StudyState) -> None:
        """An event stands in the journal."""

    def close(self) -> None:
        """The search ends, well or not."""


class DrawLog:
    """Prints every draw, and what became of those that do not count: `--verbose`."""

    def watch(self, event: Event, state: StudyState) -> None:
        """Print a draw, or why it does not count."""
        if event.kind is Kind.DRAW:
            values = ", ".join(f"{path}={value}" for path, value in event.data["drawn"])
            logger.info("Candidate %s: %s", event.candidate, values or f"seed {event.data['seed']}")
        elif event.kind in (Kind.REFUSED, Kind.DUPLICATE, Kind.OUT_OF_MEMORY, Kind.FAILED):
            assert event.candidate is not None
            record = state.candidates[event.candidate].record
            logger.info("Candidate %s: %s (%s)", event.candidate, record.status, record.reason)
        elif event.kind is Kind.FACTS:
            facts = ", ".join(f"{name} {value:,}" for name, value in event.data["facts"].items())
            logger.info("Candidate %s: %s", event.candidate, facts)

    def close(self) -> None:
        """Nothing is left behind."""


def watchers_of(folder: Path, plan: Plan, *, verbose: bool) -> list[Watching]:
    """Those that a search has."""
    del folder, plan
    return [DrawLog()] if verbose else []
