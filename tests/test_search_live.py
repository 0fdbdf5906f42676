"""The live table as text, in a terminal and in a log."""

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from search.cli.live import LiveTable, seconds_left
from search.cli.live import Terminal as SearchTerminal
from search.cli.snapshot import RungCount, RunningCandidate, Snapshot, one_line, render
from search.results.record import Objective, RungRecord, Tally, parse_constraints, parse_objectives
from search.samplers.base import PredictedValue

SNAPSHOT = Snapshot(
    name="people_search",
    objective="val_miou",
    done=10,
    num_samples=40,
    running=[RunningCandidate(12, 4, 9, 0.71234, 61.0), RunningCandidate(13, 0, 3, None, 2.0)],
    rungs=[RungCount(0, 3, 11, 4, 0.71), RungCount(0, 9, 3, 0)],
    best=(7, 0.7312),
    epochs=60,
    epochs_saved=180,
    troubles="1 failed, 2 out of memory",
    seconds=754.0,
    seconds_left=2000.0,
)


def test_what_went_wrong_is_said_in_words():
    statuses = ["failed", "out_of_memory", "out_of_memory", "refused", "duplicate", "completed"]
    candidates = {
        number: SimpleNamespace(record=SimpleNamespace(status=status, reports=[], inherited=0, origin=""))
        for number, status in enumerate(statuses)
    }
    state = SimpleNamespace(
        candidates=candidates, jobs={}, retrained={}, reason_done="", epochs=0, seconds=0.0,
        objectives=[Objective("val_miou", 1)], max_epochs=3,
    )  # fmt: skip
    snapshot = SearchTerminal("people", 6).snapshot(state)
    assert snapshot.troubles == "1 failed, 2 out of memory, 1 refused, 1 drawn before"
    assert (snapshot.done, snapshot.best) == (2, None)


@pytest.mark.parametrize(("sign", "best"), [(1, (3, 0.4)), (-1, (4, 0.3))])
def test_no_failed_candidate_and_no_nan_is_the_best(sign, best):
    nan, inf = float("nan"), float("inf")
    values = {0: ("failed", 0.9), 1: ("completed", nan), 2: ("failed", nan), 3: ("stopped", 0.4), 4: ("running", 0.3)}
    values |= {5: ("failed", 0.1), 6: ("completed", sign * inf)}

    def snapshot(numbers):
        candidates = {
            number: SimpleNamespace(
                record=SimpleNamespace(status=values[number][0], reports=[{}], epochs=1, inherited=0, origin=""),
                tally=SimpleNamespace(values=(sign * values[number][1],)),
            )
            for number in numbers
        }
        state = SimpleNamespace(
            candidates=candidates, jobs={}, retrained={}, reason_done="", epochs=5, seconds=1.0,
            objectives=[Objective("val_miou", sign)], max_epochs=3,
        )  # fmt: skip
        return SearchTerminal("people", 7).snapshot(state)

    assert snapshot(values).best == best
    assert snapshot([0, 1, 2]).best is None


@pytest.mark.parametrize("sign", [1, -1])
def test_a_candidate_that_counts_for_nothing_leads_nowhere(sign):
    statuses = ["failed", "out_of_memory", "stopped", "paused"]
    values = {number: sign * (0.9 - 0.1 * number) for number in range(4)}
    candidates = {
        number: SimpleNamespace(
            record=SimpleNamespace(status=status, reports=[{}], epochs=3, inherited=0, origin=""),
            tally=SimpleNamespace(values=(sign * values[number],)),
        )
        for number, status in enumerate(statuses)
    }
    rungs = [RungRecord(0, 3, {**values, 4: float("nan")}, [])]
    state = SimpleNamespace(
        candidates=candidates, jobs={}, retrained={}, reason_done="", epochs=12, seconds=1.0,
        objectives=[Objective("val_miou", sign)], max_epochs=9,
    )  # fmt: skip
    snapshot = SearchTerminal("people", 4, lambda: rungs).snapshot(state)
    assert snapshot.best == (2, values[2])
    assert (snapshot.rungs[0].reached, snapshot.rungs[0].best) == (5, values[2])


def test_the_table_shows_the_first_objective_that_is_a_result():
    rows = {0: (-100.0, 0.4), 1: (-200.0, 0.7)}
    candidates = {
        number: SimpleNamespace(
            record=SimpleNamespace(status="stopped", reports=[{}], epochs=3, inherited=0, origin=""),
            tally=SimpleNamespace(values=values),
        )
        for number, values in rows.items()
    }
    state = SimpleNamespace(
        candidates=candidates, jobs={}, retrained={}, reason_done="", epochs=6, seconds=1.0,
        objectives=parse_objectives(["min params", "max val_miou"]), max_epochs=3,
    )  # fmt: skip
    snapshot = SearchTerminal("people", 2).snapshot(state)
    assert (snapshot.objective, snapshot.best) == ("val_miou", (1, 0.7))


def test_a_best_one_that_violates_constraints_is_said_to():
    tallies = [Tally(parse_objectives(["min val_loss"]), {}, parse_constraints(["params <= 100"])) for _ in range(2)]
    for params, tally in zip((150, 120), tallies, strict=True):
        tally.add({"epoch": 1, "val_loss": 0.5, "params": params})
    candidates = {
        number: SimpleNamespace(
            record=SimpleNamespace(
                status="stopped", reports=[{}], epochs=3, inherited=0, origin="", objectives=tally.as_written()
            ),
            tally=tally,
        )
        for number, tally in enumerate(tallies)
    }
    state = SimpleNamespace(
        candidates=candidates, jobs={}, retrained={}, reason_done="", epochs=6, seconds=1.0,
        objectives=parse_objectives(["min val_loss"]), max_epochs=3,
    )  # fmt: skip
    snapshot = SearchTerminal("people", 2).snapshot(state)
    assert (snapshot.best, snapshot.is_feasible) == ((1, 0.5), False)
    assert "best 0.5000 (candidate 1, violates constraints)" in one_line(snapshot)
    assert rendered(snapshot)[0] == "people  best val_loss 0.5000, candidate 1, violates constraints"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


def rendered(snapshot, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(render(snapshot))
    *lines, last = (line.rstrip() for line in console.file.getvalue().splitlines())
    assert last == ""  # what is logged next has a line of its own
    return lines


def test_table_says_it_all():
    assert rendered(SNAPSHOT) == [
        "people_search  best val_miou 0.7312, candidate 7",
        "  [######..................] 10/40 candidates, 2 running",
        "  60 epochs, 180 saved (75%), 12:34, about 33:20 left",
        "  1 failed, 2 out of memory",
        "",
        "  rung  reached  promoted  best",
        "  3          11         4  0.7100",
        "  9           3         0  -",
        "",
        "  running  epoch  val_miou  time",
        "  12       4/9    0.7123    1:01",
        "  13       0/3    -         0:02",
    ]


def test_what_a_model_believes_has_a_column_and_a_line():
    running = [
        RunningCandidate(31, 4, 9, 0.71234, 61.0, PredictedValue(0.7412, 0.731, 0.752)),
        RunningCandidate(34, 0, 3, None, 2.0),
    ]
    shares = {"lr": 0.62, "base_channels": 0.204, "optimizer": 0.004}
    origins = {"random": 8, "modelled": 25, "enqueued": 1}
    snapshot = replace(SNAPSHOT, running=running, importances=shares, origins=origins, promising=running[0])
    lines = rendered(snapshot)
    assert lines[3:5] == [
        "  of 34 candidates 8 random, 25 modelled, 1 enqueued",
        "  importance lr 62%, base_channels 20%, optimizer 0%",
    ]
    assert lines[-3:] == [
        "  running  epoch  val_miou  predicted                  time",
        "  31       4/9    0.7123    0.7412 (0.7310 to 0.7520)  1:01",
        "  34       0/3    -         -                          0:02",
    ]
    assert ", candidate 31 predicted 0.7412 (0.7310 to 0.7520), 8 random 25 modelled 1 enqueued, 1 failed" in one_line(
        snapshot
    )
    assert "random" not in one_line(replace(SNAPSHOT, origins={"random": 40}))
    # The column remains while the model has not seen those that run, until the best are trained again.
    assert "predicted" in rendered(replace(SNAPSHOT, importances=shares))[-3]
    assert "predicted" not in rendered(replace(SNAPSHOT, importances=shares, trained_again=0))[-3]


def test_a_table_of_beliefs_fits_into_eighty_columns():
    prediction = PredictedValue(-123456.7, -200000.0, -20000.0)
    running = [RunningCandidate(1234, 1000, 1000, -123456.7, 36000.0, prediction)]
    names = {f"depthwise_convolution_{place}": 1 / 64 for place in range(64)}
    origins = {"random": 9999, "modelled": 9999, "enqueued": 9999, "unknown": 9999}
    snapshot = replace(SNAPSHOT, objective="val_iou_person", running=running, importances=names, origins=origins)
    whole, narrow = rendered(snapshot, 200), rendered(snapshot, 80)
    assert whole == narrow
    assert "2%, 62 more" in narrow[4]
    assert len(rendered(replace(snapshot, importances={"x" * 90: 1.0}))[4]) == 80


def test_no_line_is_wider_than_the_terminal():
    lines = rendered(SNAPSHOT, 30)
    assert max(map(len, lines)) <= 30
    assert lines[0] == "people_search  best val_miou …"


def test_a_study_that_has_just_begun():
    assert rendered(Snapshot("s", "val_miou", 0, 5)) == [
        "s",
        "  [........................] 0/5 candidates, 0 running",
        "  0 epochs, 0:00",
    ]


def test_names_with_brackets_are_text():
    assert rendered(Snapshot("[b]s[/b]", "val_miou", 0, 5))[0] == "[b]s[/b]"


def test_names_and_reasons_reach_no_terminal_raw():
    evil = "a\x1b]0;b\x07\x1b[2J\nerror: forged"
    shown = r"a\x1b]0;b\x07\x1b[2J\nerror: forged"
    running = [RunningCandidate(f"again {evil}", 1, 2, 0.5, 1.0)]
    snapshot = replace(SNAPSHOT, name=evil, objective=evil, running=running, trained_again=1)
    assert one_line(snapshot).startswith(f"{shown}: 10/40")
    assert f"again {shown} 1/2" in one_line(snapshot)
    console = Console(file=io.StringIO(), width=300)
    console.print(render(snapshot))
    lines = console.file.getvalue().splitlines()
    assert lines[0].startswith(shown)
    assert not any("\x1b" in line or line.startswith("error:") for line in lines)
    stream = io.StringIO()
    terminal = SearchTerminal("people", 6, table=LiveTable(stream, clock=lambda: 0.0))
    terminal.table.update(SNAPSHOT)
    event = SimpleNamespace(kind="ended", data={"status": "failed", "reason": evil}, candidate=3)
    terminal.watch(event, SimpleNamespace(num_samples=6))
    assert stream.getvalue().splitlines()[-1] == f"Candidate 3 failed: {shown}"


def test_in_a_terminal_it_is_drawn_over_itself():
    stream = Terminal()
    table = LiveTable(stream, clock=lambda: 0.0, width=80)
    table.update(SNAPSHOT)
    before = stream.tell()
    table.update(SNAPSHOT, force=True)
    drawn = stream.getvalue()[before:]
    assert drawn.count("\x1b[1A") == len(rendered(SNAPSHOT))  # up to the first line, from the one after the last
    assert drawn.count("people_search") == 1
    table.close()


def test_what_is_said_stays_above_the_table():
    stream = Terminal()
    table = LiveTable(stream, clock=lambda: 0.0, width=80)
    table.update(SNAPSHOT)
    table.say("candidate [3] failed")
    after = stream.getvalue().rpartition("\x1b[2K")[2]
    assert after.splitlines()[:2] == ["candidate [3] failed", "people_search  best val_miou 0.7312, candidate 7"]
    table.close()


def test_a_killed_search_leaves_the_cursor_visible():
    stream = Terminal()
    table = LiveTable(stream, clock=lambda: 0.0, width=80)
    table.update(SNAPSHOT)
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")
    table.close()


def test_elsewhere_a_line_now_and_then():
    now = [0.0]
    stream = io.StringIO()
    table = LiveTable(stream, clock=lambda: now[0])
    for seconds in (0.0, 1.0, 29.0, 31.0):
        now[0] = seconds
        table.update(SNAPSHOT)
    assert stream.getvalue() == f"{one_line(SNAPSHOT)}\n" * 2
    assert one_line(SNAPSHOT) == (
        "people_search: 10/40 candidates done, 2 running, 60 epochs, best 0.7312 (candidate 7), 1 failed, "
        "2 out of memory, 33:20 left"
    )


def test_what_is_trained_again_is_told():
    running = [RunningCandidate("again candidate7_seed1", 4, 27, 0.7, 61.0)]
    snapshot = Snapshot("s", "val_miou", 5, 5, running=running, epochs=60, trained_again=1)
    assert one_line(snapshot) == "s: 5/5 candidates done, 1 trained again, again candidate7_seed1 4/27, 60 epochs"
    assert rendered(snapshot)[1] == "  [########################] 5/5 candidates, 1 trained again, 1 running"


def test_time_left_is_at_the_speed_so_far():
    assert seconds_left(100.0, 50, 25) == pytest.approx(50.0)
    assert seconds_left(100.0, 0, 25) is None
    assert seconds_left(100.0, 50, float("nan")) is None


def test_the_table_says_how_rungs_agree_and_what_they_decide():
    rungs = [
        RungCount(0, 1, 6, 6, 0.5, 0.25, True, "passes all"),
        RungCount(0, 3, 6, 2, 0.7, -1.0),
        RungCount(0, 9, 2, 0),
    ]
    stream = io.StringIO()
    Console(file=stream, width=100).print(render(Snapshot("people", "val_miou", 0, 9, rungs=rungs)))
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert ["rung", "reached", "promoted", "best", "agrees", "decides"] in lines
    assert next(line for line in lines if line[:1] == ["1"])[-3:] == ["0.25*", "passes", "all"]
    assert next(line for line in lines if line[:1] == ["3"])[-2:] == ["-1.00", "compares"]
    assert next(line for line in lines if line[:1] == ["9"])[-1] == "compares"
