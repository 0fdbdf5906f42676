"""The results of a study for a notebook: lists of plain records."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.results.leaderboard import leaderboard, winner_of
from search.results.record import CandidateRecord, StudyRecord


@dataclass(frozen=True)
class StudyResult:
    """A study as lists of records, which pandas takes as they are: `pandas.DataFrame(result.candidates)`.

    Attributes:
        record: Everything that is known of the study.
    """

    record: StudyRecord

    @property
    def folder(self) -> Path:
        """Folder of the study; `best/` in it holds the winner."""
        return Path(self.record.folder)

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """A record per candidate: its number, status, costs, objectives and drawn values."""
        return [self._row(each) for each in self.record.candidates]

    @property
    def curves(self) -> list[dict[str, Any]]:
        """A record per epoch of each candidate: its number, the epoch and all results."""
        return [{"candidate": each.index, **row} for each in self.record.candidates for row in each.reports]

    @property
    def best(self) -> dict[str, Any] | None:
        """The record of the winner; None if no candidate has results."""
        winner = winner_of(self.record)
        return None if winner is None else self._row(winner)

    @property
    def front(self) -> list[dict[str, Any]]:
        """The records of the Pareto front; with one objective, of the best candidates, which are equal."""
        return [self._row(row.candidate) for row in leaderboard(self.record) if row.is_on_front]

    @property
    def retrained(self) -> list[dict[str, Any]]:
        """A record per retraining of winner and runners-up, with the results of its test."""
        return [
            {"candidate": each.candidate, "rank": each.rank, "seed": each.seed, "status": each.status, **each.test}
            for each in self.record.retrained
        ]

    @property
    def predictions(self) -> list[dict[str, Any]]:
        """A record per candidate that runs: the expected value of the first objective that is a result."""
        found = self.record.beliefs.predictions
        return [
            {"candidate": number, "mean": each.mean, "low": each.low, "high": each.high}
            for number, each in found.items()
        ]

    @property
    def importances(self) -> dict[str, float]:
        """The share of the variance of this objective that the sampler ascribes to each marker, by JSON path."""
        return dict(self.record.beliefs.importances)

    def to_csv(self, path: str | Path) -> None:
        """Write a row per candidate, and a row per epoch to a second file next to it.

        Raises:
            OSError: A file cannot be written.
        """
        from search.cli.export import export_csv  # writes the same as the command

        export_csv(self.record, Path(path))

    @staticmethod
    def _row(candidate: CandidateRecord) -> dict[str, Any]:
        return {
            "candidate": candidate.index,
            "status": candidate.status,
            "reason": candidate.reason,
            "origin": candidate.origin,
            "seed": candidate.seed,
            "epochs": candidate.epochs,
            "best_epoch": candidate.best_epoch,
            "seconds": candidate.seconds,
            "folder": candidate.folder,
            **candidate.facts,
            **candidate.objectives,
            **candidate.test,
            **dict(candidate.drawn),
        }
