"""The live table as text, in a terminal and in a log."""

import io

import pytest

from search.cli.live import LiveTable, RungCount, RunningCandidate, Snapshot, one_line, render, seconds_left

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
    troubles={"failed": 1, "out_of_memory": 2},
    seconds=754.0,
    seconds_left=2000.0,
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_table_says_it_all():
    assert render(SNAPSHOT) == [
        "people_search  best val_miou 0.7312, candidate 7",
        "  [######..................] 10/40 candidates, 2 running",
        "  60 epochs, 180 saved (75%), 12:34, about 33:20 left",
        "  1 failed, 2 out of memory",
        "",
        "  rung      reached  went on  best",
        "  3              11        4  0.7100",
        "  9               3        0  -",
        "",
        "  running   epoch    val_miou",
        "  12        4/9      0.7123    1:01",
        "  13        0/3      -         0:02",
    ]


def test_no_line_is_wider_than_the_terminal():
    lines = render(SNAPSHOT, 30)
    assert max(map(len, lines)) == 30
    assert lines[0] == "people_search  best val_mio..."


def test_a_study_that_has_just_begun():
    assert render(Snapshot("s", "val_miou", 0, 5)) == [
        "s",
        "  [........................] 0/5 candidates, 0 running",
        "  0 epochs, 0:00",
    ]


def test_in_a_terminal_it_is_drawn_over_itself():
    stream = Terminal()
    table = LiveTable(stream, clock=lambda: 0.0, width=80)
    table.update(SNAPSHOT)
    before = stream.tell()
    table.update(SNAPSHOT, force=True)
    height = len(render(SNAPSHOT))
    assert stream.getvalue()[before:].startswith(f"\x1b[{height}F\x1b[Jpeople_search")


def test_what_is_said_stays_above_the_table():
    stream = Terminal()
    table = LiveTable(stream, clock=lambda: 0.0, width=80)
    table.update(SNAPSHOT)
    table.say("candidate 3 failed")
    after = stream.getvalue().rpartition("\x1b[J")[2]
    assert after.splitlines()[:2] == ["candidate 3 failed", "people_search  best val_miou 0.7312, candidate 7"]


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
    assert render(snapshot)[1] == "  [########################] 5/5 candidates, 1 trained again, 1 running"


def test_time_left_is_at_the_speed_so_far():
    assert seconds_left(100.0, 50, 25) == pytest.approx(50.0)
    assert seconds_left(100.0, 0, 25) is None
    assert seconds_left(100.0, 50, float("nan")) is None
