"""Grammars, expansions and predictions from files."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from utils.architecture.cells.expansion import CellGrammar, Expansion, Floats
from utils.architecture.cells.grammar import Grammar
from utils.architecture.cells.nasbench201 import Nasbench201Blocks, Nasbench201Nodes
from utils.errors import ConfigError, SearchError
from utils.files import open_regular

_GRAMMARS: Mapping[str, type[Any]] = {
    "blocks": Grammar,
    "nasbench201": Nasbench201Nodes,
    "nasbench201_blocks": Nasbench201Blocks,
}
# zipfile and NumPy raise them at whichever part is damaged.
_OF_DAMAGED_FILES: tuple[type[Exception], ...] = (
    OSError, ConfigError, ValueError, TypeError, LookupError, AttributeError, EOFError, MemoryError, OverflowError,
    RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_grammar(value: Mapping[str, Any]) -> CellGrammar:
    """Return the grammar of which `to_json` gave this."""
    arguments = dict(value)
    grammar: CellGrammar = _GRAMMARS[arguments.pop("kind")](**arguments)
    return grammar


def load_expansion(path: Path) -> Expansion:
    """Return the expansion that `Expansion.save` wrote.

    Raises:
        SearchError: The file is missing or damaged.
    """
    try:
        with open_regular(path) as stream, np.load(stream, allow_pickle=False) as file:
            grammar = read_grammar(json.loads(str(file["grammar"])))
            expansion = Expansion(grammar, [str(each) for each in file["parents"]], file["places"])
            expansion.codes([0, -1] if len(expansion) else None)  # the places are in ascending order
            return expansion
    except _OF_DAMAGED_FILES as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SearchError(f"{path}: holds no expansion of cells ({reason}). Delete it: it is made again.") from None


def load_predictions(path: Path) -> dict[str, Floats]:
    """Return the arrays of a file of predictions by name.

    Raises:
        SearchError: It is missing or damaged.
    """
    try:
        with open_regular(path) as stream, np.load(stream, allow_pickle=False) as file:
            return {name: np.asarray(file[name], dtype=float) for name in file.files}
    except _OF_DAMAGED_FILES as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SearchError(f"{path}: the predictions cannot be read ({reason}).") from None
