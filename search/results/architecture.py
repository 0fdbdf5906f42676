"""The architecture of a supernet after each epoch, as its trainer has written it, and the sections that show it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.architecture.course import course_text, entries_of_checkpoint
from utils.architecture.decoding import decode, entropy_shares
from utils.architecture.genotype import Genotype
from utils.architecture.pictures import alpha_svg, beta_svg, cell_svg, path_svg
from utils.errors import EspalierError, SearchError
from utils.files import read_json_object, write_text_atomically

logger = logging.getLogger("espalier")

ARCHITECTURES = "architecture.json"
_MOST_COLUMNS = 160  # epochs of a heat map


@dataclass(frozen=True)
class ArchitectureEpoch:
    """The architecture parameters after an epoch.

    Attributes:
        epoch: From 1.
        alpha: (E, 8) logits of the operations on the edges of a cell.
        beta: (L, 4, 3) logits of the moves between levels.
        edges: (E,) logits of the edges, of a supernet that weighs them.
        steps: Steps that have trained them so far; None if the file does not say it.
    """

    epoch: int
    alpha: NDArray[np.float64]
    beta: NDArray[np.float64]
    edges: NDArray[np.float64] | None = None
    steps: int | None = None

    @property
    def is_untrained(self) -> bool:
        """Whether they are known to be as they began: the genotype is random."""
        return self.steps == 0

    def decode(self) -> Genotype:
        """Return the genotype that they prefer."""
        return decode(self.alpha, self.beta, self.edges)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "ArchitectureEpoch":
        """Return the architecture that an entry of the file describes."""
        edges = None if entry.get("edges") is None else np.array(entry["edges"], float)
        steps = None if entry.get("steps") is None else int(entry["steps"])
        return cls(int(entry["epoch"]), np.array(entry["alpha"], float), np.array(entry["beta"], float), edges, steps)


def read_course(path: Path, *, restores: bool = False) -> list[ArchitectureEpoch]:
    """Read the architecture of a supernet after each epoch, from a checkpoint next to the file if that is lost.

    Args:
        path: The file `architecture.json` of a run folder.
        restores: Write the file anew then; only while no training writes it.

    Raises:
        SearchError: It is missing or damaged, and no checkpoint holds its content.
    """
    try:
        return _read_file(path)
    except SearchError as error:
        lost = error
    entries = max(map(entries_of_checkpoint, sorted(path.parent.glob("*.pth"))), key=len, default=[])
    if not entries:
        raise lost
    course = _course_of(entries, lambda reason: SearchError(f"{lost} Of its checkpoint: {reason}."))
    logger.warning("%s The content is taken from a checkpoint.", str(lost).partition(". ")[0] + ".")
    if restores:
        with suppress(OSError):  # the checkpoint still has it
            write_text_atomically(path, course_text(entries))
    return course


def _read_file(path: Path) -> list[ArchitectureEpoch]:
    """Read the file alone."""

    def damaged(reason: str) -> SearchError:
        return SearchError(
            f"{reason}. A supernet is decoded by it, and no checkpoint next to it holds it. Put back a copy of one of "
            "these files, and continue with --resume auto, or start anew."
        )

    content = read_json_object(path, damaged)
    if not content:
        raise damaged(f"{path}: cannot be read (it is missing or empty)")
    course = _course_of(content.get("epochs"), lambda reason: damaged(f"{path}: {reason}"))
    if not course:
        raise damaged(f"{path}: it has no epoch")
    return course


def _course_of(entries: Any, damaged: Callable[[str], SearchError]) -> list[ArchitectureEpoch]:
    """Return the architecture that entries describe; each can be decoded, and all have the same shapes."""
    try:
        course = [ArchitectureEpoch.from_json(each) for each in entries]
        for each in course:
            each.decode()
        shapes = {(each.alpha.shape, each.beta.shape) for each in course}
        if len(shapes) > 1:
            raise ValueError(f"alpha and beta have {len(shapes)} different shapes")
    except (LookupError, AttributeError, TypeError, ValueError, OverflowError, EspalierError) as error:
        raise damaged(f"it is no course of an architecture ({type(error).__name__}: {error})") from error
    return course


def path_text(genotype: Genotype) -> str:
    """Return the strides of the layers as text."""
    return " ".join(map(str, genotype.strides))


def course_sections(
    candidate: int, course: Sequence[ArchitectureEpoch], genotype: Mapping[str, Any] | None, epoch: int | None = None
) -> list[dict[str, Any]]:
    """Return the sections of the report about one supernet.

    Args:
        candidate: Its number.
        course: Its architecture after each epoch; empty if it is not known any more.
        genotype: The decoded one; None if it is not decoded.
        epoch: After which it was decoded; None: the last one.
    """
    sections: list[dict[str, Any]] = []
    shown = Genotype.from_json(genotype) if genotype is not None else course[-1].decode() if course else None
    if shown is not None:
        state = "as it is trained again" if genotype is not None else "so far"
        if genotype is None and course[-1].is_untrained:
            state = "which are random: the architecture has not learned yet"
        of_epoch = next((each for each in course if each.epoch == epoch), course[-1] if course else None)
        beta = of_epoch.beta if of_epoch is not None and of_epoch.beta.shape[0] == shown.num_layers else None
        sections.append(
            {
                "title": f"Network of candidate {candidate}",
                "text": f"The path through the strides and the cell of each layer, {state}.",
                "pictures": [path_svg(shown, beta=beta), cell_svg(shown)],
            }
        )
    if not course:
        return sections
    epochs, picked = [each.epoch for each in course], _picked(course)
    shares = [entropy_shares(each.alpha, each.beta) for each in course]
    entropies = {"operations (alpha)": [share for share, _ in shares], "moves (beta)": [share for _, share in shares]}
    shown_epochs = [each.epoch for each in picked]
    sections += [
        {
            "title": "Course of the architecture",
            "text": "Entropy of operations and moves as a share of the largest possible, from 1 (undecided) to 0, and "
            "the genotype by epoch.",
            "lines": {"epochs": epochs, "title": "entropy, share of the largest", "values": entropies},
            "table": _genotypes_by_epoch(course),
        },
        {
            "title": "Operations by epoch",
            "pictures": [alpha_svg([each.alpha for each in picked], shown_epochs, genotype=shown)],
        },
        {
            "title": "Moves by epoch",
            "pictures": [beta_svg([each.beta for each in picked], shown_epochs, genotype=shown)],
        },
    ]
    return sections


def _genotypes_by_epoch(course: Sequence[ArchitectureEpoch]) -> list[list[Any]]:
    """Return a row for each run of epochs with equal genotypes, the first row the head."""
    rows: list[list[Any]] = [["epochs", "strides", "changed since the run before"]]
    before: Genotype | None = None
    for genotype, group in groupby(course, key=ArchitectureEpoch.decode):
        epochs = [each.epoch for each in group]
        changed = "" if before is None else _difference(before, genotype)
        span = str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
        rows.append([span, path_text(genotype), changed or None])
        before = genotype
    return rows


def _difference(before: Genotype, after: Genotype) -> str:
    """Return in words the differences between two genotypes of the same size."""
    layers = sum(old != new for old, new in zip(before.strides, after.strides, strict=True))
    pairs = [(set(old), set(new)) for old, new in zip(before.blocks, after.blocks, strict=True)]
    edges = sum(len(new - old) for old, new in pairs)
    return ", ".join(
        f"{count} {noun}{'s' if count > 1 else ''}" for count, noun in ((layers, "layer"), (edges, "edge")) if count
    )


def _picked(course: Sequence[ArchitectureEpoch]) -> list[ArchitectureEpoch]:
    """Return the epochs that a heat map shows: all, or an even selection with the first and the last."""
    count = min(len(course), _MOST_COLUMNS)
    return [course[round(place)] for place in np.linspace(0, len(course) - 1, count)]
