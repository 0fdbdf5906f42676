"""Records without the times of this machine, to compare studies."""

from dataclasses import replace


def _rows(rows):
    return [{name: value for name, value in row.items() if name != "seconds_at"} for row in rows]


def without_times(record):
    """A candidate or a retraining without the times at which it was in a worker and reported."""
    return replace(record, reports=_rows(record.reports), spans=[])
