"""The findings of `train.py --check`, as text for a terminal and as JSON."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from utils.errors import ConfigError, DataError, Finding
from utils.writing.text import in_one_line

_MAX_PLACE = 48
_MIN_MESSAGE = 40  # columns of a terminal
_MAX_SHOWN = 100  # findings of a kind; a file of --json holds all


class Table(NamedTuple):
    """A table of the report: its title, the names of its columns, and its cells as text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class CheckReport:
    """Everything that a check found.

    Attributes:
        findings: Faults and warnings, in the order in which they were found.
        notes: Parts that could not be checked, and why.
        tables: The data in numbers.
        network: The summary of the network; empty if there is none.
        forecast: Time, memory and disk of the run; empty if no step worked.
        facts: The numbers of tables, network and forecast, as plain data.
    """

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    network: str = ""
    forecast: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def faults(self, kind: str) -> list[Finding]:
        """Return the faults of a kind, `config` or `data`."""
        return [finding for finding in self.findings if finding.is_fault and finding.kind == kind]

    @property
    def warnings(self) -> list[Finding]:
        """The findings that do not stop a training."""
        return [finding for finding in self.findings if not finding.is_fault]

    def raise_faults(self) -> None:
        """Raise an error that counts the faults, if there are any.

        Raises:
            ConfigError: The configuration has a fault.
            DataError: Only the data have.
        """
        config, data = len(self.faults("config")), len(self.faults("data"))
        counts = [f"{count} in the {name}" for count, name in ((config, "configuration"), (data, "data")) if count]
        if counts:
            kind = ConfigError if config else DataError
            raise kind(f"faults found: {' and '.join(counts)}. They are listed above, each with its repair.")

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data: `faults`, `warnings`, `not_checked`, and the numbers."""
        rows = [
            {"kind": each.kind, "place": each.place, "message": each.message, "is_fault": each.is_fault}
            for each in self.findings
        ]
        faults = [{key: row[key] for key in ("kind", "place", "message")} for row in rows if row["is_fault"]]
        warnings = [{key: row[key] for key in ("kind", "place", "message")} for row in rows if not row["is_fault"]]
        return {"faults": faults, "warnings": warnings, "not_checked": self.notes, **self.facts}

    def text(self, width: int = 120) -> str:
        """Return the report for a terminal of so many columns: network, data, warnings, and the faults last."""
        parts = [self.network] if self.network else []
        parts += [_table_text(table) for table in self.tables]
        if self.forecast:
            parts.append("\n".join(["Forecast", *(f"  {line}" for line in self.forecast.splitlines())]))
        groups: Mapping[str, Sequence[Finding]] = {
            "Warnings": self.warnings,
            "Faults in the data": self.faults("data"),
            "Faults in the configuration": self.faults("config"),
        }
        parts += [_findings_text(f"{name}: {len(found)}", found, width) for name, found in groups.items() if found]
        if self.notes:
            parts.append("\n".join(["Not checked", *(f"  {note}" for note in self.notes)]))
        return "\n\n".join(parts)


def _table_text(table: Table) -> str:
    """Return a table in aligned columns: the first to the left, the others to the right."""
    rows = [[in_one_line(text) for text in row] for row in (table.header, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [table.title]
    for row in rows:
        cells = [text.rjust(width) if column else text.ljust(width) for column, (text, width) in enumerate(
            zip(row, widths, strict=True)
        )]  # fmt: skip
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return "\n".join(lines)


def _findings_text(title: str, findings: Sequence[Finding], width: int) -> str:
    """Return findings as a table of place and message."""
    places = [in_one_line(finding.place) for finding in findings]
    column = min(_MAX_PLACE, max(map(len, places)))
    lines = [title]
    for finding, place in zip(findings[:_MAX_SHOWN], places, strict=False):
        message = finding.message.removeprefix(f"{finding.place}: ").removeprefix(f"{finding.place} ")
        indent = " " * (column + 4)
        wrapped = [
            line
            for paragraph in message.splitlines()
            for line in textwrap.wrap(
                in_one_line(paragraph),
                max(_MIN_MESSAGE, width - len(indent)),
                break_long_words=False,
                break_on_hyphens=False,
            )
        ]
        if len(place) > column:
            lines.append(f"  {place}")
        else:
            lines.append(f"  {place.ljust(column)}  {wrapped.pop(0) if wrapped else ''}")
        lines += [indent + line for line in wrapped]
    if len(findings) > _MAX_SHOWN:
        lines.append(f"  ... and {len(findings) - _MAX_SHOWN} more; --json FILE writes all of them.")
    return "\n".join(lines)
