"""The lease of a shared study, its folder, and the command that joins it."""

import json
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from search.cli.control import control_parser, repair, run_control
from search.executors.processes import Processes
from search.joining.command import WORKER, LeadingProcess, create_shared_study, join_parser, local_executor, run_join
from search.joining.leading import lead, settle
from search.joining.lease import Lease, LeaseLost, LeaseView, LeaseWatcher, is_shared
from search.joining.published import Publisher, journal_to_read
from search.joining.timing import Timing
from search.study.folders import create_study_folder, find_studies, read_present_config
from search.study.journal import JOURNAL, Journal, read_events
from search.study.study import Study, read
from tests.test_search_killed import parts_of
from tests.test_search_study import CONFIG
from utils.errors import ConfigError, SearchError
from utils.files import folder_lock


class Clock:
    """A clock that is set by hand; nothing runs next to the test."""

    def __init__(self, rate=1.0):
        self.now, self.rate = 1000.0, rate

    def timing(self, patience=30.0):
        return Timing(patience, 0.1, lambda: self.now, self.pass_time, lambda _function: None)

    def pass_time(self, seconds):
        self.now += seconds * self.rate


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def study(tmp_path):
    return create_study_folder(str(tmp_path), "sample", CONFIG)


def test_a_generation_is_claimed_once(study, clock):
    assert LeaseWatcher(study, clock.timing()).look() == LeaseView(0, is_free=True)
    first, second = (Lease.claim(study, 1, clock.timing()) for _ in range(2))
    assert first.generation == 1
    assert second is None
    first.check()


def test_an_observer_goes_by_its_own_clock(study, clock):
    lease, other = Lease.claim(study, 1, clock.timing()), Clock(rate=100)
    watcher = LeaseWatcher(study, other.timing())
    for _ in range(10):
        lease._renew()
        assert not watcher.look().is_free
        other.pass_time(0.29)
    assert not watcher.look().is_free
    other.pass_time(0.1)
    assert watcher.look() == LeaseView(1, is_free=True)


def test_a_patient_holder_is_waited_for(study, clock):
    Lease.claim(study, 1, clock.timing(patience=100.0))
    watcher = LeaseWatcher(study, clock.timing(patience=10.0))
    watcher.look()
    clock.pass_time(99)
    assert not watcher.look().is_free
    clock.pass_time(2)
    assert watcher.look().is_free


def test_whoever_was_followed_may_write_no_more(study, clock):
    first = Lease.claim(study, 1, clock.timing())
    second = Lease.claim(study, 2, clock.timing())
    with pytest.raises(LeaseLost, match=r"leads the study no more \(generation 1\)"):
        first.check()
    first.release("done")  # too late to count
    assert is_shared(study)
    second.check()


def test_a_lease_that_cannot_be_renewed_runs_out(study, clock):
    lease = Lease.claim(study, 1, clock.timing())
    clock.pass_time(14)
    lease.check()
    clock.pass_time(2)
    lease.check()  # renewed
    shutil.rmtree(study / "joined")
    clock.pass_time(14)
    lease.check()
    clock.pass_time(2)
    with pytest.raises(LeaseLost):
        lease.check()


@pytest.mark.parametrize("end", ["done", "stopped", "failed", "left"])
def test_an_end_is_seen_by_those_that_took_part(study, clock, end):
    lease = Lease.claim(study, 1, clock.timing())
    watcher = LeaseWatcher(study, clock.timing())
    assert watcher.look() == LeaseView(1, is_free=False)
    lease.release(end, "why")
    assert watcher.look() == LeaseView(1, is_free=end == "left", end=end, message="why")
    assert LeaseWatcher(study, clock.timing()).look() == LeaseView(1, is_free=True)  # of one that joins now
    assert not is_shared(study)


def test_a_journal_is_read_from_the_copy_of_its_leader(study, clock):
    lease = Lease.claim(study, 1, clock.timing())
    journal = Journal(study / JOURNAL, wal=False, guard=lease.check)
    assert journal_to_read(study) == study / JOURNAL  # nothing is published yet
    publisher = Publisher(study, 1, clock.timing())
    journal.append("study.begin", environment={"command": ["-c", "x.json", "--plugin", "my.py"]})
    publisher.publish_in_time()
    journal.append("study.begin", environment={})
    publisher.publish_in_time()
    copy = journal_to_read(study)
    assert copy == study / "joined" / "published.sqlite"
    assert len(list(read_events(copy))) == 2
    clock.pass_time(5)
    publisher.publish_in_time()
    assert list(read_events(copy)) == list(read_events(study / JOURNAL))
    journal.close()
    (study / JOURNAL).write_bytes(b"as if another machine wrote to it")
    assert len(read(study, parts_of("halving")).sessions) == 2
    assert find_studies(study.parent) == [study]
    assert not (study / "joined" / "published.sqlite-wal").exists()


def test_a_new_leader_begins_with_what_a_search_of_one_process_wrote(study, clock):
    seen = []

    def session(epochs, journal):
        journal.append("study.begin", environment={}, options={"retrain": {"epochs": epochs}})

    def shared_session(_executor, journal):
        seen.append(read_present_config(study)["search"].get("retrain", {}).get("epochs"))
        session(5, journal)

    lead(study, Lease.claim(study, 1, clock.timing()), clock.timing(), shared_session)
    with closing(Journal(study / JOURNAL)) as journal:
        session(7, journal)
    lead(study, Lease.claim(study, 2, clock.timing()), clock.timing(), shared_session)
    assert seen == [None, 7]


def test_a_search_of_one_process_leaves_a_shared_study_alone(study, clock):
    Lease.claim(study, 1, clock.timing())
    for use in (Study(study, parts_of("halving"), worker="").run, lambda: repair(study)):
        with pytest.raises(SearchError, match=r"several processes share this study.*python -m search join"):
            use()


def test_a_command_says_who_obeys_it(tmp_path, clock, capsys):
    study = create_study_folder(str(tmp_path), "sample", CONFIG | {"search": {"objectives": ["max val_miou"]}})
    run_control(control_parser("add").parse_args([str(study), "1"]))
    assert "continue it:  python -m search --resume" in capsys.readouterr().out
    Lease.claim(study, 1, clock.timing())
    run_control(control_parser("stop").parse_args([str(study)]))
    assert "if none does, join it:  python -m search join" in capsys.readouterr().out


def test_a_study_that_one_process_searches_is_not_shared(study, clock):
    lease = Lease.claim(study, 1, clock.timing())
    clock.pass_time = lambda seconds: setattr(clock, "now", clock.now + 10) or lease._renew()
    with folder_lock(study, SearchError), pytest.raises(SearchError, match=r"is searching there alone"):
        settle(study, lease, Timing(30.0, 0.1, lambda: clock.now, clock.pass_time, lambda _function: None))


def test_a_journal_that_remains_locked_is_an_error(study, clock):
    lease = Lease.claim(study, 1, clock.timing())
    clock.pass_time = lambda seconds: setattr(clock, "now", clock.now + 10) or lease._renew()
    timing = Timing(30.0, 0.1, lambda: clock.now, clock.pass_time, lambda _function: None)
    with closing(sqlite3.connect(study / JOURNAL, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SearchError, match=r"the journal is locked.*nothing that was written is lost"):
            settle(study, lease, timing)
        other.execute("COMMIT")
    settle(study, lease, timing)


def test_a_study_is_created_once_and_whole(tmp_path):
    folder = tmp_path / "new" / "study"
    for _ in range(2):
        create_shared_study(folder, CONFIG)
        assert json.loads((folder / "config.json").read_text()) == CONFIG
        assert [event.name for event in read_events(folder / JOURNAL)] == ["study.created"]
    assert [path.name for path in folder.parent.iterdir()] == ["study"]


def test_a_folder_of_another_study_is_refused(tmp_path):
    create_shared_study(tmp_path / "study", CONFIG)
    changed = CONFIG | {"trainer": {"epochs": 5}}
    with pytest.raises(SearchError, match=r"differs in trainer\.epochs \(9 there, 5 here\)"):
        create_shared_study(tmp_path / "study", changed)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(SearchError, match=r"--study .*full: a study cannot be created there"):
        create_shared_study(tmp_path / "full", CONFIG)
    assert (tmp_path / "full" / "letter.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "study"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no folder named"),
        (["one", "two"], "one and two named"),
        (["one", "--study", "two"], "one and two named"),
        (["here", "trainer.epochs=3"], "only search.executor may be another one"),
        (["here"], "there is no study in it"),
        (["here", "--patience", "0"], "there is no study in it"),
    ],
)
def test_a_wrong_command_line_is_refused(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, SearchError), match=message):
        run_join(join_parser().parse_intermixed_args(words), lambda *_: None)


def test_patience_has_limits(study):
    with pytest.raises(ConfigError, match=r"--patience 0\.5: must be between 1 and 3600"):
        run_join(join_parser().parse_intermixed_args([str(study), "--patience", "0.5"]), lambda *_: None)


def test_workers_are_never_in_the_process_that_exchanges_messages():
    config = {"search": {"executor": {"type": "serial", "args": {"device": "cpu"}}}}
    executor = local_executor(config)
    assert isinstance(executor, Processes)
    assert (executor.workers, executor.devices) == (1, ["cpu"])
    assert local_executor({}).workers == 1
    assert local_executor({"search": {"executor": {"type": "processes", "args": {"workers": 3}}}}).workers == 3
    with pytest.raises(SearchError, match="ray distributes the candidates itself"):
        local_executor({"search": {"executor": "ray"}})


def test_the_worker_is_that_of_any_search():
    launch = Path(__file__).resolve().parents[1] / "search" / "worker" / "launch.py"  # to import it loads torch
    assert f'WORKER = "{WORKER}"' in launch.read_text()


def test_a_process_that_never_leads_is_not_started_for_ever():
    leading = LeadingProcess([sys.executable, "-c", "raise SystemExit(3)"])
    for _ in range(3):
        leading.supervise(LeaseView(0, is_free=True))
        leading._process.wait()
    with pytest.raises(SearchError, match="ended 3 times before it did"):
        leading.supervise(LeaseView(0, is_free=True))


def test_a_process_that_leads_ends_with_its_member():
    leading = LeadingProcess([sys.executable, "-c", "import sys; sys.stdin.read()"])
    leading.supervise(LeaseView(0, is_free=True))
    process = leading._process
    leading.supervise(LeaseView(1, is_free=False))
    assert leading._process is process
    leading.close()
    assert process.returncode == 0
