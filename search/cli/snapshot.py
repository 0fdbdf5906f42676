"""The content of the table of a running search, as a table of rich and as a line of a log."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from search.results.beliefs import ORIGIN_WORDS
from search.samplers.base import PredictedValue
from utils.durations import duration
from utils.writing.text import in_one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

_MOST_RUNNING = 8
_BAR = 24  # characters
_WIDTH = 80  # characters of a line, if it is not cut


@dataclass(frozen=True)
class RungCount:
    """The progress at a rung.

    Attributes:
        bracket: From 0.
        epochs: At which it compares.
        reached: Number of candidates that reached it.
        promoted: Number of these that were promoted.
        best: Value of the best of them; None before the first.
        correlation: Rank correlation with the next rung; NaN if unknown.
        is_unbiased: Whether it is of candidates that continued without a decision.
        decides: As in `RungRecord`.
    """

    bracket: int
    epochs: int
    reached: int
    promoted: int
    best: float | None = None
    correlation: float = math.nan
    is_unbiased: bool = False
    decides: str = "compares"


@dataclass(frozen=True)
class RunningCandidate:
    """A candidate in a worker.

    Attributes:
        candidate: Number of its draw, or the name of a retraining: `again candidate7_seed0`.
        epoch: Epochs done.
        until: Epoch after which it is compared next.
        value: First objective so far; None before its first report.
        seconds: Since it was given to the worker.
        predicted: Its value at the end of a full training; None if no model says so.
    """

    candidate: int | str
    epoch: int
    until: int
    value: float | None
    seconds: float
    predicted: PredictedValue | None = None


@dataclass(frozen=True)
class Snapshot:
    """The content of the table.

    Attributes:
        name: Of the study.
        objective: Name of the first objective that is a result.
        done: Candidates that count towards `num_samples`, do not run and will not be continued.
        num_samples: Candidates to try.
        running: In workers, the longest first.
        rungs: Bracket by bracket, the fewest epochs first.
        best: Number and value of the best candidate; None before the first report.
        is_feasible: Whether the best candidate keeps the constraints.
        origins: Number of candidates of each origin in words; empty if it is unknown.
        importances: Share of each marker by its short name, as a model sees it, the largest first.
        promising: The running candidate with the best prediction; None if there is none.
        epochs: Trained.
        epochs_saved: Compared with training the finished candidates in full.
        troubles: Numbers of failed, refused, ... candidates in words; empty if there are none.
        seconds: Since the study began, over all sessions.
        seconds_left: An estimate; None if there is none yet.
        trained_again: Number of completed retrainings; None while the search still draws or promotes.
    """

    name: str
    objective: str
    done: int
    num_samples: int
    running: Sequence[RunningCandidate] = ()
    rungs: Sequence[RungCount] = ()
    best: tuple[int, float] | None = None
    epochs: int = 0
    epochs_saved: int = 0
    troubles: str = ""
    seconds: float = 0.0
    seconds_left: float | None = None
    trained_again: int | None = None
    is_feasible: bool = True
    origins: Mapping[str, int] = field(default_factory=dict)
    importances: Mapping[str, float] = field(default_factory=dict)
    promising: RunningCandidate | None = None


def render(snapshot: Snapshot) -> "RenderableType":
    """Return the table."""
    from rich.console import Group
    from rich.table import Column, Table
    from rich.text import Text

    share = min(1.0, snapshot.done / snapshot.num_samples) if snapshot.num_samples else 1.0
    bar = "#" * round(_BAR * share)
    head, progress, costs = snapshot.name, f"{snapshot.done}/{snapshot.num_samples} candidates", ""
    if snapshot.best:
        head += f"  best {snapshot.objective} {_value_text(snapshot.best[1])}, candidate {snapshot.best[0]}"
        head += "" if snapshot.is_feasible else ", violates constraints"
    if snapshot.trained_again is not None:
        progress += f", {snapshot.trained_again} trained again"
    if snapshot.epochs_saved > 0:
        saved = snapshot.epochs_saved / (snapshot.epochs + snapshot.epochs_saved)
        costs += f", {snapshot.epochs_saved:,} saved ({saved:.0%})"
    costs += f", {duration(snapshot.seconds)}"
    if snapshot.seconds_left is not None:
        costs += f", about {duration(snapshot.seconds_left)} left"
    lines = [
        head,
        f"  [{bar:.<{_BAR}}] {progress}, {len(snapshot.running)} running",
        f"  {snapshot.epochs:,} epochs{costs}",
    ]
    if snapshot.origins:
        lines.append(f"  of {sum(snapshot.origins.values())} candidates {_origins_text(snapshot.origins)}")
    if snapshot.importances:
        lines.append(_importances_text(snapshot.importances))
    if snapshot.troubles:
        lines.append(f"  {snapshot.troubles}")
    parts: list[RenderableType] = [Text(in_one_line(line), no_wrap=True, overflow="ellipsis") for line in lines]

    new_table = partial(Table, box=None, padding=(0, 0, 0, 2), header_style="")
    if snapshot.rungs:
        # How well a rung predicts the next one, once that is known of one.
        is_known = any(math.isfinite(rung.correlation) or rung.decides != "compares" for rung in snapshot.rungs)
        columns = ["agrees", "decides"] if is_known else []
        table = new_table(
            "rung", Column("reached", justify="right"), Column("promoted", justify="right"), "best", *columns
        )
        for rung in snapshot.rungs:
            label = f"{rung.epochs}" + (f" ({rung.bracket})" if rung.bracket else "")
            cells = [_agreement_text(rung), rung.decides] if is_known else []
            table.add_row(label, str(rung.reached), str(rung.promoted), _value_text(rung.best), *cells)
        parts += ["", table]
    if snapshot.running:
        # Also if the model was not asked since these began, so that the column does not come and go.
        has_model = bool(snapshot.importances) and snapshot.trained_again is None
        is_predicted = has_model or any(each.predicted for each in snapshot.running)
        columns = ["predicted"] if is_predicted else []
        table = new_table(
            "running", "epoch", in_one_line(snapshot.objective), *columns, Column("time", justify="right")
        )
        for each in snapshot.running[:_MOST_RUNNING]:
            cells = [in_one_line(each.candidate), f"{each.epoch}/{each.until}", _value_text(each.value)]
            cells += [_predicted_text(each.predicted)] if is_predicted else []
            table.add_row(*cells, duration(each.seconds))
        parts += ["", table]
        if len(snapshot.running) > _MOST_RUNNING:
            parts.append(f"  and {len(snapshot.running) - _MOST_RUNNING} more")
    return Group(*parts, "")  # so that a line of the log does not continue the last one


def _agreement_text(rung: RungCount) -> str:
    """Return the rank correlation of a rung with the next one; a star says that no selection lowers it."""
    return "" if math.isnan(rung.correlation) else f"{rung.correlation:.2f}" + ("*" if rung.is_unbiased else "")


def one_line(snapshot: Snapshot) -> str:
    """Return the same as a line of a log."""
    parts = [f"{snapshot.name}: {snapshot.done}/{snapshot.num_samples} candidates done"]
    if snapshot.trained_again is None:
        parts.append(f"{len(snapshot.running)} running")
    else:
        parts.append(f"{snapshot.trained_again} trained again")
        parts += [f"{each.candidate} {each.epoch}/{each.until}" for each in snapshot.running]
    parts.append(f"{snapshot.epochs:,} epochs")
    if snapshot.best:
        note = "" if snapshot.is_feasible else ", violates constraints"
        parts.append(f"best {_value_text(snapshot.best[1])} (candidate {snapshot.best[0]}{note})")
    if snapshot.promising is not None:
        each = snapshot.promising
        parts.append(f"candidate {each.candidate} predicted {_predicted_text(each.predicted)}")
    if snapshot.origins.keys() - {ORIGIN_WORDS["random"]}:
        parts.append(_origins_text(snapshot.origins, " "))
    if snapshot.troubles:
        parts.append(snapshot.troubles)
    if snapshot.seconds_left is not None:
        parts.append(f"{duration(snapshot.seconds_left)} left")
    return in_one_line(", ".join(parts))


def _value_text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"


def _predicted_text(predicted: PredictedValue | None) -> str:
    """Format a prediction with its interval."""
    if predicted is None:
        return "-"
    return f"{_value_text(predicted.mean)} ({_value_text(predicted.low)} to {_value_text(predicted.high)})"


def _origins_text(origins: Mapping[str, int], separator: str = ", ") -> str:
    return separator.join(f"{count} {word}" for word, count in origins.items())


def _importances_text(importances: Mapping[str, float]) -> str:
    """Return a line of as many shares as there is room for, the largest first."""
    items = [f"{name} {share:.0%}" for name, share in importances.items()]
    for count in range(len(items), 0, -1):
        left_out = f", {len(items) - count} more" if count < len(items) else ""
        line = f"  importance {', '.join(items[:count])}{left_out}"
        if len(line) <= _WIDTH:
            break
    return line
