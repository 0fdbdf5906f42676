"""The journal of a study: damage is found with its place, and the events before it are good."""

import random
import re
import shutil
import sqlite3
from contextlib import closing

import pytest

from config.checking.sections import Budget, RetrainOptions
from search.cli.listing import best_text
from search.schedulers.asha import ASHA
from search.study.folders import create_study_folder, find_studies
from search.study.journal import JOURNAL, Event, Journal, JournalDamage, create_journal, cut_journal, read_events
from search.study.study import Study, read
from tests.support.search_worker import WORKER
from tests.test_search_study import CONFIG, EPOCHS, QUALITIES, Space, halving, parts_of
from utils.errors import SearchError

KINDS = ("created", "begin", "drawn", "duplicate", "job", "facts", "report", "ended", "deleted", "exhausted", "done")


def all_kinds():
    """The parts of a study whose journal has events of all kinds."""
    fates = ("good", "good", "refused", "diverges")
    space = Space(QUALITIES, fates, distinct=9)
    options = {"retrain": RetrainOptions(top=1, seeds=1), "budget": Budget(), "limits": {"max_params": 80}}
    return parts_of(halving(8), space, **options)


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    folder = create_study_folder(str(tmp_path_factory.mktemp("study")), "sample", CONFIG)
    Study(folder, all_kinds(), worker=WORKER).run()
    return folder


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def change(folder, statement, *values):
    with closing(sqlite3.connect(folder / JOURNAL)) as connection, connection:
        connection.execute(statement, values)


def rows_of(folder):
    with closing(sqlite3.connect(folder / JOURNAL)) as connection:
        return connection.execute("SELECT * FROM events ORDER BY id").fetchall()


def flip(folder, number, chance):
    """Change one digit of a row's data, or of another column if it has none."""
    row = rows_of(folder)[number - 1]
    digits = [place for place, letter in enumerate(row[5]) if letter.isdigit()]
    if not digits:
        change(folder, "UPDATE events SET seconds = seconds + 1 WHERE id = ?", number)
        return
    place = chance.choice(digits)
    data = row[5][:place] + str((int(row[5][place]) + 1) % 10) + row[5][place + 1 :]
    change(folder, "UPDATE events SET data = ? WHERE id = ?", data, number)


def cut(folder, number, _chance):
    change(folder, "DELETE FROM events WHERE id = ?", number)


def double(folder, number, _chance):
    """Write a row twice; those after it move on by one."""
    row, last = rows_of(folder)[number - 1], len(rows_of(folder))
    for each in range(last, number, -1):
        change(folder, "UPDATE events SET id = ? WHERE id = ?", each + 1, each)
    with closing(sqlite3.connect(folder / JOURNAL)) as connection, connection:
        connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", (number + 1, *row[1:]))


def swap(folder, number, chance):
    """Exchange a row with another one."""
    count = len(rows_of(folder))
    other = chance.choice([each for each in range(1, count + 1) if each != number])
    for old, new in ((number, -1), (other, number), (-1, other)):
        change(folder, "UPDATE events SET id = ? WHERE id = ?", new, old)


def test_the_study_has_events_of_every_kind(studied):
    assert {event.kind for event in read_events(studied / JOURNAL)} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", [flip, cut, double, swap])
def test_a_damaged_row_is_refused_with_its_place(studied, tmp_path, kind, damage):
    chance = random.Random(f"{kind} {damage.__name__}")
    for attempt in range(3):
        folder = copy_of(studied, tmp_path / str(attempt))
        events = list(read_events(folder / JOURNAL))
        number = chance.choice([place for place, event in enumerate(events, start=1) if event.kind == kind])
        damage(folder, number, chance)
        with pytest.raises(JournalDamage) as caught:
            read(folder, all_kinds())
        good = caught.value.num_good
        # The first event that is not good: the row itself, or the one that it was exchanged with.
        assert good == number - 1 if damage in (flip, cut) else good <= number
        assert f"{good} events before that are good" in str(caught.value)
        assert f"event {good + 1}" in str(caught.value) or f"after number {good}" in str(caught.value) or damage is cut


def test_a_tail_that_was_cut_off_is_found(studied, tmp_path):
    folder = copy_of(studied, tmp_path)
    count = len(rows_of(folder))
    change(folder, "DELETE FROM events WHERE id > ?", count - 3)
    with pytest.raises(JournalDamage, match=f"events after number {count - 3} are missing"):
        read(folder, all_kinds())


def test_a_damaged_study_is_cut_and_continued(studied, tmp_path):
    folder = copy_of(studied, tmp_path)
    expected = read(studied, all_kinds())
    number = (
        next(n for n, event in enumerate(read_events(folder / JOURNAL), start=1) if event.name == "search.done") - 4
    )
    flip(folder, number, random.Random(0))
    with pytest.raises(JournalDamage) as caught:
        read(folder, all_kinds())
    assert "python -m search repair" in str(caught.value)
    stored = cut_journal(folder / JOURNAL, caught.value.num_good)
    assert stored.name == "journal.damaged1.sqlite"
    record = Study(folder, all_kinds(), worker=WORKER).run()
    assert [each.objectives for each in record.candidates] == [each.objectives for each in expected.candidates]
    assert record.is_done


def test_an_empty_or_missing_journal_is_an_error_and_no_new_start(studied, tmp_path):
    folder = copy_of(studied, tmp_path)
    (folder / JOURNAL).write_bytes(b"")
    with pytest.raises(SearchError, match=r"journal is damaged \(it is empty\)"):
        Study(folder, all_kinds(), worker=WORKER).run()
    (folder / JOURNAL).unlink()
    with pytest.raises(SearchError, match=r"journal.sqlite is missing"):
        Study(folder, all_kinds(), worker=WORKER).run()


def test_an_event_that_is_not_known_is_counted(studied, tmp_path):
    folder = copy_of(studied, tmp_path)
    journal = Journal(folder / JOURNAL)
    journal.append("elsewhere.dance", 3, steps=[1, 2])
    journal.close()
    study = Study(folder, all_kinds(), worker=WORKER)
    study.restore()
    assert study.state.unknown == {"elsewhere.dance": 1}
    assert best_text(study.record()).endswith("Events that this version does not know: 1 elsewhere.dance.")


def test_a_guard_keeps_an_event_from_being_written(tmp_path):
    create_journal(tmp_path / JOURNAL)

    def refuse():
        raise SearchError("another one leads")

    journal = Journal(tmp_path / JOURNAL, wal=False, guard=refuse)
    with pytest.raises(SearchError, match="another one leads"):
        journal.append("study.begin")
    journal.close()
    assert [event.name for event in read_events(tmp_path / JOURNAL)] == ["study.created"]


def test_a_published_copy_has_all_events(studied, tmp_path):
    folder = copy_of(studied, tmp_path)
    journal = Journal(folder / JOURNAL)
    journal.publish(tmp_path / "published.sqlite")
    journal.close()
    assert list(read_events(tmp_path / "published.sqlite")) == list(read_events(folder / JOURNAL))


@pytest.mark.parametrize(("name", "stage", "kind"), [("search.report", "search", "report"), ("a.b.c", "a.b", "c")])
def test_a_name_is_a_stage_and_a_kind(name, stage, kind):
    event = Event(name, None, {}, 0.0)
    assert (event.stage, event.kind) == (stage, kind)
    assert re.match(r"[a-z.]+$", event.name)


@pytest.mark.parametrize("scheduler", ["halving", "promote", "stop"])
def test_a_study_continues_from_a_journal_that_lags_behind_its_runs(tmp_path, scheduler):
    """After a cut, and after a power cut that took the last events."""

    def parts():
        asha = {"grace_period": 1, "reduction_factor": 3}
        return parts_of(halving() if scheduler == "halving" else ASHA(9, EPOCHS, mode=scheduler, **asha))

    def results(folder):
        record = read(folder, parts())
        return [(each.status, [row["val_miou"] for row in each.reports]) for each in record.candidates], record.rungs

    folder = create_study_folder(str(tmp_path), "sample", CONFIG)
    Study(folder, parts(), worker=WORKER).run()
    expected = results(folder)
    ends = [number for number, row in enumerate(rows_of(folder)) if row[2] == "search.ended"]
    for num_good in (1, *ends[::2]):  # right after a decision
        copy = shutil.copytree(folder, tmp_path / str(num_good))
        cut_journal(copy / JOURNAL, num_good)
        Study(copy, parts(), worker=WORKER).run()
        assert results(copy) == expected


def test_a_journal_that_cannot_be_created_leaves_no_study(tmp_path, monkeypatch):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("search.study.journal._insert", full)
    with pytest.raises(SearchError, match="disk is full"):
        create_study_folder(str(tmp_path), "sample", CONFIG)
    assert list((tmp_path / "sample").iterdir()) == []
    assert find_studies(tmp_path) == []


def test_a_journal_in_a_folder_that_cannot_be_written_to_is_read(studied, tmp_path, monkeypatch):
    folder = copy_of(studied, tmp_path)
    journal = Journal(folder / JOURNAL)
    journal.append("study.noted")  # in the write-ahead log
    expected = list(read_events(folder / JOURNAL))
    monkeypatch.setattr("search.study.journal.os.access", lambda *_: False)
    before = {path.name: path.read_bytes() for path in folder.glob("journal*")}
    assert list(read_events(folder / JOURNAL)) == expected
    assert {path.name: path.read_bytes() for path in folder.glob("journal*")} == before
    journal.close()


def test_a_newer_version_of_a_known_event_is_refused(studied):
    state = Study(studied, all_kinds(), worker=WORKER).state
    with pytest.raises(SearchError, match=r"search.report has version 2, and only 1 is known here"):
        state.apply(Event("search.report", 0, {}, 0.0, version=2))


def test_damaged_pages_are_cut_off_like_damaged_rows(tmp_path):
    events = 3000
    create_journal(tmp_path / JOURNAL)
    journal = Journal(tmp_path / JOURNAL, wal=False)
    for number in range(events):
        journal.append("elsewhere.note", None, text=f"{number:0200d}")
    journal.close()
    whole = (tmp_path / JOURNAL).read_bytes()
    repaired = 0
    for page in range(3, len(whole) // 4096, 20):
        damaged = bytearray(whole)
        damaged[page * 4096 : page * 4096 + 200] = bytes(200)
        (tmp_path / JOURNAL).write_bytes(damaged)
        try:
            assert len(list(read_events(tmp_path / JOURNAL))) == events + 1, "the page holds no event"
            continue
        except JournalDamage as damage:
            num_good = damage.num_good
        if num_good:
            stored = cut_journal(tmp_path / JOURNAL, num_good)
            assert stored.read_bytes() == bytes(damaged)
            assert [event.name for event in read_events(tmp_path / JOURNAL)][1:] == ["elsewhere.note"] * (num_good - 1)
            Journal(tmp_path / JOURNAL).close()
            repaired += 1
    assert repaired > 5
