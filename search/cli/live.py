"""A search as it runs: a table that is redrawn in a terminal, now and then a line in a log."""

import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from utils.durations import duration

SECONDS_BETWEEN_TABLES = 0.5
SECONDS_BETWEEN_LINES = 30.0
_MOST_RUNNING = 8
_BAR = 24
_UP, _CLEAR_BELOW = "\x1b[{}F", "\x1b[J"


@dataclass(frozen=True)
class RungCount:
    """A rung as it stands.

    Attributes:
        bracket: From 0.
        epochs: At which it compares.
        reached: Candidates that came to it.
        went_on: Of these, those that went beyond.
        best: First objective of the best of them; None before the first.
    """

    bracket: int
    epochs: int
    reached: int
    went_on: int
    best: float | None = None


@dataclass(frozen=True)
class RunningCandidate:
    """A candidate in a worker.

    Attributes:
        candidate: Number of its draw, or what else is trained: `again candidate7_seed0`.
        epoch: Epochs done.
        until: Epoch after which it is compared next.
        value: First objective so far; None before its first report.
        seconds: Since it was handed to the worker.
    """

    candidate: int | str
    epoch: int
    until: int
    value: float | None
    seconds: float


@dataclass(frozen=True)
class Snapshot:
    """All that the table shows.

    Attributes:
        name: Of the study.
        objective: Name of the first objective.
        done: Candidates with a place among `num_samples` that do not run and will not go on.
        num_samples: Candidates to try.
        running: In workers, the longest first.
        rungs: Brackets one after the other, the fewest epochs first.
        best: Number and first objective of the best candidate; None before the first report.
        epochs: Trained.
        epochs_saved: Against training in full those that are done.
        troubles: Count by status of what failed, was refused, ...
        seconds: Since the study began, over all sessions.
        seconds_left: An estimate; None where there is none yet.
        trained_again: Trainings of the best that are done; None while the search still draws or promotes.
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
    troubles: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    seconds_left: float | None = None
    trained_again: int | None = None


def render(snapshot: Snapshot, width: int = 80) -> list[str]:
    """The table's lines, none longer than `width`."""
    lines = [_head(snapshot), _progress(snapshot), _costs(snapshot)]
    if snapshot.troubles:
        lines.append("  " + ", ".join(f"{count} {_words(status)}" for status, count in snapshot.troubles.items()))
    if snapshot.rungs:
        lines += ["", "  rung      reached  went on  best", *map(_rung_line, snapshot.rungs)]
    if snapshot.running:
        lines += ["", f"  running   epoch    {snapshot.objective}"]
        lines += [_running_line(each, snapshot.objective) for each in snapshot.running[:_MOST_RUNNING]]
        more = len(snapshot.running) - _MOST_RUNNING
        lines += [f"  and {more} more"] if more > 0 else []
    return [_cut(line, width) for line in lines]


def one_line(snapshot: Snapshot) -> str:
    """The same in a line of a log."""
    best = f", best {_value(snapshot.best[1])} (candidate {snapshot.best[0]})" if snapshot.best else ""
    left = f", {duration(snapshot.seconds_left)} left" if snapshot.seconds_left is not None else ""
    troubles = "".join(f", {count} {_words(status)}" for status, count in snapshot.troubles.items())
    running = f"{len(snapshot.running)} running"
    if snapshot.trained_again is not None:
        now = "".join(f", {each.candidate} {each.epoch}/{each.until}" for each in snapshot.running)
        running = f"{snapshot.trained_again} trained again{now}"
    return (
        f"{snapshot.name}: {snapshot.done}/{snapshot.num_samples} candidates done, {running}, "
        f"{snapshot.epochs:,} epochs{best}{troubles}{left}"
    )


def seconds_left(seconds: float, epochs: int, epochs_to_go: float) -> float | None:
    """How long the rest takes, at the speed of all epochs so far; None before the first, and where nothing is expected.

    Args:
        seconds: That the epochs took, with all workers at once.
        epochs: Done in that time.
        epochs_to_go: As many as are expected; NaN where that cannot be said yet.
    """
    if not epochs or math.isnan(epochs_to_go):
        return None
    return max(0.0, epochs_to_go) * seconds / epochs


class LiveTable:
    """Shows snapshots: in a terminal in place, elsewhere a line every half a minute.

    Args:
        stream: Where to; standard error by default, so that results can be piped.
        clock: Seconds that only grow.
        width: Columns; by default those of the terminal, asked for each time.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        width: int | None = None,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._width = width
        self._is_terminal = self._stream.isatty()
        self._next = -float("inf")
        self._height = 0
        self._last: Snapshot | None = None

    @property
    def is_due(self) -> bool:
        """Whether an update would be shown now: a snapshot need not be made for nothing."""
        return self._clock() >= self._next

    def update(self, snapshot: Snapshot, *, force: bool = False) -> None:
        """Show how it stands, unless that was done just now.

        Args:
            snapshot: How it stands.
            force: Show it all the same, for example at the end.
        """
        if not force and not self.is_due:
            return
        self._next = self._clock() + (SECONDS_BETWEEN_TABLES if self._is_terminal else SECONDS_BETWEEN_LINES)
        self._last = snapshot
        if self._is_terminal:
            self._draw(snapshot)
        else:
            self._write(one_line(snapshot) + "\n")

    def say(self, text: str) -> None:
        """Write a line that stays, above the table in a terminal."""
        if not self._height:
            self._write(text + "\n")
            return
        self._erase()
        self._write(text + "\n")
        if self._last is not None:
            self._draw(self._last)

    def close(self) -> None:
        """Leave the last table standing; what is written next comes below it."""
        self._height = 0

    def _draw(self, snapshot: Snapshot) -> None:
        size = shutil.get_terminal_size()
        width, height = self._width or size.columns, size.lines
        # The cursor cannot go up beyond the screen, and a full last column would wrap.
        lines = render(snapshot, width - 1)[: max(3, height - 1)]
        self._write(self._erasing() + "".join(f"{line}\n" for line in lines))
        self._height = len(lines)

    def _erase(self) -> None:
        self._write(self._erasing())
        self._height = 0

    def _erasing(self) -> str:
        return _UP.format(self._height) + _CLEAR_BELOW if self._height else ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _head(snapshot: Snapshot) -> str:
    best = (
        f"best {snapshot.objective} {_value(snapshot.best[1])}, candidate {snapshot.best[0]}" if snapshot.best else ""
    )
    return f"{snapshot.name}  {best}".rstrip()


def _progress(snapshot: Snapshot) -> str:
    share = min(1.0, snapshot.done / snapshot.num_samples) if snapshot.num_samples else 1.0
    bar = "#" * round(_BAR * share)
    again = f", {snapshot.trained_again} trained again" if snapshot.trained_again is not None else ""
    return (
        f"  [{bar:.<{_BAR}}] {snapshot.done}/{snapshot.num_samples} candidates{again}, {len(snapshot.running)} running"
    )


def _costs(snapshot: Snapshot) -> str:
    full = snapshot.epochs + snapshot.epochs_saved
    saved = (
        f", {snapshot.epochs_saved:,} saved ({snapshot.epochs_saved / full:.0%})" if snapshot.epochs_saved > 0 else ""
    )
    left = f", about {duration(snapshot.seconds_left)} left" if snapshot.seconds_left is not None else ""
    return f"  {snapshot.epochs:,} epochs{saved}, {duration(snapshot.seconds)}{left}"


def _rung_line(rung: RungCount) -> str:
    label = f"{rung.epochs}" + (f" ({rung.bracket})" if rung.bracket else "")
    return f"  {label:<8}  {rung.reached:>7}  {rung.went_on:>7}  {_value(rung.best)}"


def _running_line(each: RunningCandidate, objective: str) -> str:
    value = f"{_value(each.value):<{max(8, len(objective))}}"
    return f"  {each.candidate!s:<8}  {f'{each.epoch}/{each.until}':<7}  {value}  {duration(each.seconds)}"


def _value(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"


def _words(status: str) -> str:
    return {"duplicate": "drawn before"}.get(status, status.replace("_", " "))


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: max(0, width - 3)] + "..."
