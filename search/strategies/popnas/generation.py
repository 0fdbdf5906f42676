"""A generation: the cells that are trained next, and why, as the journal holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

EXACT = "exact"  # instead of a predictor: the costs follow from the cell
Reason = Literal["empty", "first", "front", "score", "exploration"]
"""Why a cell is trained: it has no block, or one; it is predicted to be on the front, or to have one of the best
scores; or it uses operations or inputs that are rare there."""


@dataclass(frozen=True)
class ChosenCell:
    """A cell that is to be trained.

    Attributes:
        cell: Its canonical text.
        reason: See `Reason`.
        estimates: Predictions by objective, in the original sign; empty if there are none.
        deviations: Standard deviation of a prediction, by objective; only of those that have one.
    """

    cell: str
    reason: Reason
    estimates: Mapping[str, float] = field(default_factory=dict)
    deviations: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as the journal holds it."""
        data: dict[str, Any] = {"cell": self.cell, "reason": self.reason}
        if self.estimates:
            data["estimates"] = dict(self.estimates)
        if self.deviations:
            data["deviations"] = dict(self.deviations)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ChosenCell":
        """Return the cell from the data of `to_json`.

        Raises:
            LookupError: It has no cell or reason.
        """
        return cls(data["cell"], data["reason"], data.get("estimates", {}), data.get("deviations", {}))


@dataclass
class Generation:
    """Cells that are trained and compared together.

    Attributes:
        blocks: Their blocks.
        round: Number of the choice among cells of so many blocks, from 1.
        cells: Which are trained.
        num_expanded: Cells among which they were chosen, each different from the others and those trained before.
        num_grown: Ways in which these grow; 0 if unknown.
        predictors: By objective, the predictor of the estimates, and why it is that one.
        audit: By objective, how the estimates of earlier generations compare with the results of their trainings.
        audited: Blocks and round of these; empty in studies of earlier versions: the one before.
        seconds: That the prediction took.
        numbers: Candidates drawn of it so far, in the order of `cells`.
        is_audit: Whether it has no cells, and only the audit of the last one that has.
    """

    blocks: int
    round: int
    cells: Sequence[ChosenCell]
    num_expanded: int = 0
    predictors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    audit: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    numbers: list[int] = field(default_factory=list)
    num_grown: int = 0
    is_audit: bool = False
    audited: Sequence[tuple[int, int]] = ()

    @property
    def place(self) -> tuple[int, int]:
        """Blocks and round."""
        return self.blocks, self.round

    @property
    def predicted(self) -> list[str]:
        """The objectives that were predicted: the estimates of the others are exact."""
        return [name for name, each in self.predictors.items() if each.get("name") != EXACT]

    @property
    def next_cell(self) -> ChosenCell | None:
        """The cell that is drawn next; None if all are."""
        return self.cells[len(self.numbers)] if len(self.numbers) < len(self.cells) else None

    def notes_of_next(self) -> dict[str, Any]:
        """Return the notes on the cell that is drawn next, by column of a file for other programs."""
        cell = self.next_cell
        if cell is None:
            raise ValueError("all cells of the generation are drawn")
        predicted = {f"predicted {name}": value for name, value in cell.estimates.items()}
        return {"blocks": self.blocks, "round": self.round, "cell": cell.cell, "chosen for": cell.reason, **predicted}

    @property
    def name(self) -> str:
        """Its name: the number of blocks, and that of the round from the second on."""
        return f"{self.blocks}" if self.round == 1 else f"{self.blocks}, round {self.round}"

    def to_json(self) -> dict[str, Any]:
        """Return it as the journal holds it."""
        return {
            "blocks": self.blocks,
            "round": self.round,
            "cells": [each.to_json() for each in self.cells],
            "num_expanded": self.num_expanded,
            "num_grown": self.num_grown,
            "predictors": {name: dict(each) for name, each in self.predictors.items()},
            "audit": {name: dict(each) for name, each in self.audit.items()},
            "seconds": self.seconds,
            **({"audited": [list(each) for each in self.audited]} if self.audited else {}),
            **({"is_audit": True} if self.is_audit else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Generation":
        """Return the generation from the data of `to_json`.

        Raises:
            LookupError: It lacks a part.
        """
        return cls(
            data["blocks"],
            data["round"],
            [ChosenCell.from_json(each) for each in data["cells"]],
            data.get("num_expanded", 0),
            data.get("predictors", {}),
            data.get("audit", {}),
            data.get("seconds", 0.0),
            num_grown=data.get("num_grown", 0),
            is_audit=data.get("is_audit", False),
            audited=[(blocks, number) for blocks, number in data.get("audited", ())],
        )


def unaudited(generations: Sequence[Generation]) -> list[Generation]:
    """Return the generations whose estimates are yet to be compared with the results of their trainings.

    They are more than one if the worker failed that was to compare them.
    """
    found: list[Generation] = []
    for each in generations:
        if each.audit:
            found.clear()
        if any(cell.estimates for cell in each.cells):
            found.append(each)
    return found


def audit_of(place: int, generations: Sequence[Generation]) -> Mapping[str, Mapping[str, Any]]:
    """Return by objective how a generation was audited: when later cells were chosen, or after the last ones.

    Args:
        place: Of the generation.
        generations: All, with the audit of the last one.
    """
    last = generations[place]
    for each in generations[place + 1 :]:
        if each.audit and generations[place].place in (each.audited or [last.place]):
            return each.audit
        last = each if each.cells else last
    return {}
