"""Commands of the user to a study, at each moment of it."""

import json
from dataclasses import replace

import pytest

from search.executors.serial import Serial
from search.joining.leading import lead
from search.joining.lease import Lease
from search.joining.timing import Timing
from search.schedulers.asha import ASHA
from search.study.commands import COMMANDS, send_command, waiting_commands
from search.study.folders import create_study_folder
from search.study.journal import JOURNAL, Journal, read_events
from search.study.study import Study, read
from tests.support.search_worker import WORKER
from tests.test_search_study import CONFIG, EPOCHS, halving, parts_of
from utils.errors import Interrupted


class Commander:
    """Sends commands at some of the events that are written."""

    def __init__(self, folder, commands):
        self.folder, self.commands, self.events = folder, commands, 0

    def __call__(self, _event, _state):
        self.events += 1
        for name, data in self.commands.get(self.events, ()):
            send_command(self.folder, name, **data)


def session(folder, scheduler, commands, *, executor=None):
    parts = replace(parts_of(scheduler), executor=executor or Serial())
    return Study(folder, parts, worker=WORKER, watchers=[Commander(folder, commands)]).run()


@pytest.fixture
def folder(tmp_path):
    return create_study_folder(str(tmp_path), "sample", CONFIG)


def commands_of(folder):
    return [event.data for event in read_events(folder / JOURNAL) if event.name == "study.command"]


def asha():
    return ASHA(4, EPOCHS, grace_period=1, reduction_factor=3, mode="promote")


def epochs_of(record):
    return [candidate.epochs for candidate in record.candidates]


@pytest.mark.parametrize("at", [6, 9, 30, 47])
def test_what_cannot_be_tried_any_more_does_not_end_the_study(folder, at):
    commands = {at: [("enqueue", {"choices": [["number", 30 + each]]}) for each in range(9)]}
    record = session(folder, halving(), commands)
    assert record.is_done
    assert len(record.candidates) == 9
    assert len(commands_of(folder)) == 9
    again = session(folder, halving(), {})
    assert epochs_of(again) == epochs_of(record)


def test_an_enqueued_candidate_follows_all_others_where_the_study_can_grow(folder):
    session(folder, asha(), {})
    send_command(folder, "enqueue", choices=[["number", 30]])
    record = session(folder, asha(), {})
    assert len(record.candidates) == 5


@pytest.mark.parametrize("at", range(5, 14))
def test_this_process_obeys_at_the_next_report(folder, at):
    """With the executor `serial`, too, whose worker does not return before its task is over."""
    with pytest.raises(Interrupted):
        session(folder, asha(), {at: [("stop", {"candidate": None})]})
    before = sum(event.name == "search.report" for event in read_events(folder / JOURNAL))
    record = session(folder, asha(), {})
    assert before < 8
    assert epochs_of(record) == [1, 3, 1, 9]


def test_a_candidate_that_is_given_up_does_not_wait_for_the_user(folder):
    commands = {5: [("pause", {"candidate": 0})], 7: [("stop", {"candidate": 0})]}
    record = session(folder, ASHA(2, EPOCHS, mode="stop", grace_period=3), commands)
    assert record.is_done
    assert [(each.status, each.epochs) for each in record.candidates] == [("stopped", 3), ("completed", 9)]


def test_a_candidate_that_the_user_has_paused_is_not_promoted(folder):
    commands = {13: [("pause", {"candidate": 1})]}  # it waits at its first rung
    paused = Study(folder, parts_of(asha()), worker=WORKER, watchers=[Commander(folder, commands)])
    seen = []

    def give_up(event, _state):
        if event.name == "search.job" and event.data["start"] == 1 and not seen:
            seen.append(event.candidate)
            send_command(folder, "stop", candidate=1)

    paused.watchers = [*paused.watchers, give_up]
    record = paused.run()
    assert seen == [1]
    assert epochs_of(record)[1] == 1


@pytest.mark.parametrize(
    "content",
    [
        {"name": "add", "data": {}},
        {"name": "add", "data": {"num_samples": "x"}},
        {"name": "add", "data": {"num_samples": 1.5}},
        {"name": "add", "data": {"num_samples": True}},
        {"name": "add", "data": {"num_samples": float("inf")}},
        {"name": "stop", "data": {"candidate": [1]}},
        {"name": "stop", "data": {"candidate": True}},
        {"name": "pause", "data": {}},
        {"name": "enqueue", "data": {"choices": None}},
        {"name": "dance", "data": {"steps": 0}},
        {"name": ["add"], "data": {"candidate": 0}},
        {"name": "add"},
        [],
    ],
)
def test_a_file_that_is_no_command_is_set_aside(folder, content):
    (folder / COMMANDS).mkdir()
    (folder / COMMANDS / "1.json").write_text(json.dumps(content))
    assert waiting_commands(folder) == []
    assert [path.name for path in (folder / COMMANDS).iterdir()] == ["1.unreadable"]
    session(folder, asha(), {})
    assert len(read(folder, parts_of(asha())).candidates) == 4


class Killed(BaseException):
    """A kill: nothing after it is done."""


def kill_before(name):
    """Return an `append` of the journal that dies instead of writing an event of this name."""
    append = Journal.append

    def dying(journal, event, candidate=None, **data):
        if event == name:
            raise Killed
        return append(journal, event, candidate, **data)

    return dying


@pytest.mark.parametrize("name", ["add", "enqueue"])
def test_a_command_is_obeyed_once_though_the_search_is_killed_while_it_obeys(folder, monkeypatch, name):
    session(folder, asha(), {})
    data = {"add": {"num_samples": 1}, "enqueue": {"choices": [["number", 30]]}}
    send_command(folder, name, **data[name])
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", kill_before("study.command"))
        with pytest.raises(Killed):
            session(folder, asha(), {})
    assert [command.name for command in waiting_commands(folder)] == [name]
    assert len(session(folder, asha(), {}).candidates) == 5
    assert waiting_commands(folder) == []


@pytest.mark.parametrize("name", ["stop", "pause", "resume"])
def test_a_command_to_a_search_that_has_ended_does_nothing_to_the_next_one(folder, caplog, name):
    send_command(folder, name, candidate=None)
    assert session(folder, asha(), {}).is_done
    assert f"{name}: it was sent to a search that has ended since" in caplog.text
    assert waiting_commands(folder) == commands_of(folder) == []


@pytest.mark.parametrize(("end", "is_dropped"), [(None, False), ("left", False), ("stopped", True), ("done", True)])
def test_only_a_leader_that_takes_over_obeys_the_commands_to_the_one_before(folder, end, is_dropped):
    timing, seen = Timing(30.0, 0.1, lambda: 0.0, lambda _: None, lambda _: None), []
    first = Lease.claim(folder, 1, timing)
    if end is not None:
        first.release(end)
    send_command(folder, "stop", candidate=None)

    def run(_executor, journal):
        seen.append(len(waiting_commands(folder)))
        journal.close()

    lead(folder, Lease.claim(folder, 2, timing), timing, run)
    assert seen == [0 if is_dropped else 1]
