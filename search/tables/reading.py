"""Reading a table from a file of any of the formats."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from search.tables.columns import read_columns
from search.tables.csv_table import read_csv_table
from search.tables.npz_table import read_npz_table
from search.tables.table import ResultTable

Repeats = Literal["mean", "draw"]


def read_table(
    file: str | Path,
    columns: Mapping[str, Any] | None = None,
    *,
    repeats: Repeats = "mean",
    marked: Sequence[str] = (),
) -> ResultTable:
    """Read a table.

    Args:
        file: `.npz`, or CSV with another suffix.
        columns: The names of its columns, see `TableColumns`.
        repeats: A configuration that was trained several times has the mean of its trainings, or one of them, which
            follows from the seed of the candidate.
        marked: JSON paths of the config's markers: columns of these names are settings.

    Raises:
        ConfigError: The columns do not fit the file.
        DataError: The file is missing or damaged.
    """
    path, chosen = Path(file), read_columns(columns)
    read = read_npz_table if path.suffix.lower() == ".npz" else read_csv_table
    table = read(path, chosen, marked)
    return table.mean() if repeats == "mean" and table.lengths.shape[1] > 1 else table
