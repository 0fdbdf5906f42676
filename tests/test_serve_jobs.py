"""Jobs of the service: each runs once, survives the service, and says why it ended."""

import errno
import json
import os
import subprocess
import sys
import time
from collections import Counter

import pytest

from benchmarks.serve_kills import use_all
from search.serve.jobs import files, supervisor
from search.serve.jobs import queue as queue_module
from search.serve.jobs.files import (
    CHILD,
    ENDED,
    LOG,
    STARTED,
    STOP,
    TARGET,
    JobRecord,
    claim,
    process_entry,
    read_state,
    read_target,
    request_stop,
    write_job,
)
from search.serve.jobs.keys import KeyedAnswers
from search.serve.jobs.queue import JobQueue
from search.serve.jobs.supervisor import supervise
from search.serve.refusals import Refusal
from search.study.folders import find_studies
from search.study.journal import JOURNAL, Journal, read_events
from tests.support.served import client_of, prepare
from tests.support.served_job import PROGRAM, write_configs
from utils.environment import REPOSITORY
from utils.errors import SearchError
from utils.files import LOCK, folder_lock, write_json
from utils.runs.locks import is_held, lock_table


def until(condition, seconds=60.0):
    """Wait for another process."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def python(code):
    return [sys.executable, "-c", code]


def ordered(folder, code, **more):
    write_job(folder, JobRecord("1", "study", "start", python(code), 0.0, str(folder.parent), **more))
    return folder


@pytest.mark.parametrize(
    ("code", "state", "exit_code", "reason"),
    [
        ("print('good')", "done", 0, None),
        ("raise SystemExit('error: no such class. Correct it.')", "failed", 1, "error: no such class. Correct it."),
        ("import os; os.kill(os.getpid(), 9)", "failed", None, ""),
        ("raise SystemExit(143)", "stopped", 143, None),
    ],
    ids=["done", "failed", "killed", "stopped"],
)
def test_a_job_says_how_it_ended(code, state, exit_code, reason, tmp_path):
    folder = ordered(tmp_path / "job", code)
    assert read_state(folder).name == "waiting"
    assert supervise(folder)
    found = read_state(folder)
    assert (found.name, found.exit_code, found.reason) == (state, exit_code, reason)
    assert found.signal == ("SIGKILL" if "kill" in code else None)
    assert found.started <= found.ended
    assert not supervise(folder)  # a second process finds it over


def test_a_job_that_is_held_is_not_run_a_second_time(tmp_path):
    folder = ordered(tmp_path / "job", "print(1)")
    held = claim(folder)
    assert is_held(folder)
    assert not supervise(folder)
    assert claim(folder) is None
    os.close(held)
    assert not is_held(folder)
    assert supervise(folder)
    assert (folder / LOG).read_text() == "1\n"


def test_a_job_that_waits_is_cancelled_and_never_runs(tmp_path):
    folder = ordered(tmp_path / "job", "print(1)")
    request_stop(folder)
    assert read_state(folder).name == "cancelled"
    assert not supervise(folder)
    other = ordered(tmp_path / "other", "print(1)")
    (other / STOP).touch()  # while its process begins
    assert supervise(other)
    assert read_state(other).name == "cancelled"
    assert not (other / LOG).exists()


def test_a_job_whose_processes_were_killed_is_lost(tmp_path):
    folder = ordered(tmp_path / "job", "print(1)")
    write_json(folder / STARTED, {"seconds": 1.0})
    (folder / LOG).write_text("Epoch 3\n\n")
    found = read_state(folder)
    assert found.name == "lost"
    assert found.reason.endswith("or the machine went down. Epoch 3")
    held = claim(folder)  # by a child that lives on
    assert read_state(folder, "no lock is listed").name == "running"
    os.close(held)
    write_json(folder / ENDED, {"exit_code": 0, "seconds": 2.0})
    assert read_state(folder).name == "done"


def test_a_command_is_stopped_though_the_process_that_watched_it_was_killed(tmp_path):
    folder = ordered(tmp_path / "job", "import signal; print('on', flush=True); signal.pause()")
    watching = subprocess.Popen(
        [sys.executable, "-c", f"from search.serve.jobs.supervisor import *; supervise(Path({str(folder)!r}))"]
    )
    until(lambda: (folder / CHILD).exists() and (folder / LOG).read_text() == "on\n")
    watching.kill()
    watching.wait()
    assert read_state(folder).name == "running"
    request_stop(folder)
    until(lambda: read_state(folder).name == "lost")  # its exit code is known to nobody


def test_only_the_process_that_was_noted_is_stopped(tmp_path):
    folder = ordered(tmp_path / "job", "1")
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ended = subprocess.Popen(["true"])
    ended.wait()
    write_json(folder / STARTED, {"seconds": 1.0, "process": ended.pid, "begun": "1"})
    write_json(folder / CHILD, process_entry(other.pid) | {"begun": "1"})  # a later process of the same number
    held = claim(folder)
    request_stop(folder)
    write_json(folder / STARTED, {"seconds": 1.0, **process_entry(os.getpid())})  # it lives, and looks for the file
    write_json(folder / CHILD, process_entry(other.pid))
    request_stop(folder)
    os.close(held)
    other.communicate(b"\n")
    assert other.returncode == 0


def full_disk(monkeypatch, module, name, times):
    """Let a function of a module fail as on a full disk, and return the number of its calls so far."""
    calls, real = [], getattr(module, name)

    def fail(*given, **more):
        calls.append(given)
        if len(calls) <= times:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*given, **more)

    monkeypatch.setattr(module, name, fail)
    return calls


def test_the_end_of_a_job_is_written_when_the_full_disk_has_room_again(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "_SECONDS_TO_RETRY", 0.0)
    monkeypatch.setattr(supervisor, "_folder_of", lambda *_: str(tmp_path / "study"))
    folder = ordered(tmp_path / "job", "1")
    full_disk(monkeypatch, supervisor, "write_end", 2)
    real, failed = supervisor.write_json, []

    def write(path, content):
        if path.name in (CHILD, TARGET) and len(failed) < 3:
            failed.append(path.name)
            raise OSError(errno.ENOSPC, "full")
        real(path, content)

    monkeypatch.setattr(supervisor, "write_json", write)
    assert supervise(folder)
    assert failed == [CHILD, TARGET, TARGET]
    assert (read_state(folder).name, read_target(folder)) == ("done", str(tmp_path / "study"))


def test_a_full_disk_is_no_start_and_leaves_no_job_held(tmp_path, monkeypatch):
    queue = JobQueue(tmp_path / "jobs", 1)
    job, _ = queue.order("study", "start", python("1"), parent=tmp_path)
    folder = tmp_path / "jobs" / job.record.id
    (folder / LOG).mkdir()  # it cannot be written
    for _ in range(5):
        with pytest.raises(OSError, match="Is a directory"):
            queue._start(job.record)
    (folder / LOG).rmdir()
    queue._num_starts[job.record.id] = 3
    calls = full_disk(monkeypatch, queue_module, "write_end", 1)
    with pytest.raises(OSError, match="No space left"):
        queue._start(job.record)
    assert queue._start(job.record)
    assert (queue.jobs()[0].state.name, len(calls)) == ("failed", 2)


def test_a_queue_waits_after_a_start_that_failed(tmp_path, monkeypatch):
    queue = JobQueue(tmp_path / "jobs", 1)
    queue.order("study", "start", python("1"), parent=tmp_path)
    waited = []

    def wait(seconds):
        waited.append(seconds)
        queue._closed = len(waited) == 2

    monkeypatch.setattr(queue._changed, "wait", wait)
    starts = full_disk(monkeypatch, queue, "_start", 1)
    monkeypatch.setattr(queue_module, "is_begun", lambda _folder: False)
    monkeypatch.setattr(queue_module.subprocess, "run", lambda *_, **_more: subprocess.CompletedProcess([], 0))
    queue._work()
    assert (len(starts), waited) == (2, [queue_module._SECONDS_TO_RETRY, queue_module._SECONDS])


def test_a_process_that_cannot_record_its_start_says_so(tmp_path):
    folder = ordered(tmp_path / "job\x1b[2J\nb", "print('started')")
    (folder / LOCK).mkdir()
    words = [sys.executable, "-m", "search.serve.jobs.supervisor", str(folder)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == supervisor.TRY_AGAIN
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert "cannot be locked (Is a directory)" in ended.stderr
    assert r"job\x1b[2J\nb" in ended.stderr


def test_a_folder_that_cannot_be_locked_is_closed_and_said_in_one_line(tmp_path, monkeypatch):
    folder, opened = ordered(tmp_path / "job", "1"), []
    real = os.open
    monkeypatch.setattr(files.os, "open", lambda *given: opened.append(real(*given)) or opened[-1])

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with pytest.raises(SearchError, match=r"cannot be locked \(No locks available\)"):
        claim(folder)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])
    write_json(folder / STARTED, {"seconds": 1.0})
    assert read_state(folder, "no lock is listed").name == "running"


def test_a_job_that_cannot_be_recorded_leaves_nothing(tmp_path, monkeypatch):
    queue = JobQueue(tmp_path / "jobs", 1)
    full_disk(monkeypatch, queue_module, "write_text_atomically", 1)
    with pytest.raises(Refusal, match=r"cannot be recorded \(No space left on device\)") as refused:
        queue.order("study", "start", python("1"), parent=tmp_path, files={"config.json": "{}"})
    assert refused.value.status == 503
    assert list((tmp_path / "jobs").iterdir()) == []
    synced = []
    monkeypatch.setattr(queue_module, "sync_folder", lambda folder: synced.append(sorted(os.listdir(folder))))
    job, _ = queue.order("study", "start", python("1"), parent=tmp_path, files={"config.json": "{}"})
    assert synced == [[job.record.id]]  # after the rename


def test_a_key_is_of_one_request(tmp_path):
    queue = JobQueue(tmp_path / "jobs", 1)
    asked = {"config": "a.json", "overrides": ["seed=1"]}
    job, _ = queue.order("study", "start", python("1"), parent=tmp_path, key="k", **asked)
    assert queue.order("study", "start", python("1"), parent=tmp_path, key="k", **asked)[0].record == job.record
    for kind, action, more in (
        ("training", "start", {}),
        ("study", "resume", {}),
        ("study", "start", {"config": "b.json"}),
        ("study", "start", {"overrides": []}),
        ("study", "start", {"target": str(tmp_path)}),
    ):
        with pytest.raises(Refusal, match="Send a new key with each request") as refused:
            queue.order(kind, action, python("1"), parent=tmp_path, key="k", **(asked | more))
        assert refused.value.status == 409
    assert len(queue.jobs()) == 1


def test_a_command_with_a_key_is_obeyed_once(tmp_path):
    saved, configs = prepare(tmp_path)
    with client_of(saved, configs, num_jobs=0) as client:
        (study,) = client.get("/api/studies").json()["studies"]
        (folder,) = find_studies(saved)

        def send(command, key, body):
            return client.post(f"/api/studies/{study['id']}/{command}", json=body, headers={"Idempotency-Key": key})

        first = send("add", "one", {"num_samples": 2})
        assert first.status_code == 202
        assert send("add", "one", {"num_samples": 2}).json() == first.json()
        assert len(list((folder / "commands").iterdir())) == 1
        for command, body in (("add", {"num_samples": 3}), ("enqueue", {"values": ["optimizer.args.lr=0.1"]})):
            assert send(command, "one", body).status_code == 409
        assert send("add", "two", {"num_samples": 2}).status_code == 202
        assert len(list((folder / "commands").iterdir())) == 2
        resumed = send("resume", "three", {}).json()["job"]
        with folder_lock(folder, SearchError):  # as if its job ran
            assert send("resume", "three", {}).json()["job"]["id"] == resumed["id"]
        assert send("add", "three", {"num_samples": 2}).status_code == 409
        assert len(list((folder / "commands").iterdir())) == 2


@pytest.mark.parametrize("is_obeyed", [False, True])
def test_a_command_whose_answer_was_lost_in_a_kill_is_obeyed_once(tmp_path, is_obeyed):
    saved, configs = prepare(tmp_path)
    (folder,) = find_studies(saved)
    with client_of(saved, configs, num_jobs=0) as client:
        (study,) = client.get("/api/studies").json()["studies"]
        path, body, headers = f"/api/studies/{study['id']}/add", {"num_samples": 2}, {"Idempotency-Key": "one"}
        assert client.post(path, json=body, headers=headers).status_code == 202
        (stored,) = saved.rglob("keys/*.json")
        content = json.loads(stored.read_text())
        del content["answer"]
        stored.write_text(json.dumps(content))  # as if the service had been killed before it stored the answer
        (left,) = (folder / "commands").iterdir()
        if is_obeyed:
            journal = Journal(folder / JOURNAL)
            journal.append("study.command", id=left.stem, command="add", refusal="", num_samples=2)
            journal.close()
            left.unlink()
        assert client.post(path, json=body, headers=headers).status_code == 202
        assert [each.stem for each in (folder / "commands").iterdir()] == ([] if is_obeyed else [left.stem])
        assert "answer" in json.loads(stored.read_text())


class Answering:
    """A service that answers a start with a job and a resume with a message, and then no more."""

    def __init__(self, count, start):
        self.count = count
        self.answers = {"start": start, "resume": {"message": "Noted."}}

    def ask(self, path, body=None, key=None):
        if path == "/api/overview":
            return 200, {"jobs": [], "studies": [{"id": "a", "num_samples": 1, "state": "unfinished"}], "runs": []}
        self.count -= 1
        assert self.count >= 0
        return 202, self.answers["resume" if "resume" in path else "start"]


def test_the_experiment_with_kills_says_when_a_client_ends():
    made, told = [], Counter()
    assert use_all(Answering(6, {"job": {"id": "1"}}), 0, 3, made, told) == []
    assert told.keys() == {"start 202", "resume 202"}
    assert len(made) == told["start 202"]
    faults = use_all(Answering(1, {"job": {"id": "1"}}), 0, 1, made, Counter())
    assert [fault.partition(" by ")[0] for fault in faults] == ["a client ended", "1 requests were answered, not 2"]
    assert "KeyError" in use_all(Answering(8, {}), 0, 4, made, Counter())[0]


def test_a_queue_runs_jobs_in_order_and_another_one_continues_it(tmp_path):
    out = tmp_path / "out.txt"
    code = f"open({str(out)!r}, 'a').write({{}})"
    first = JobQueue(tmp_path / "jobs", 1)
    for number in range(3):
        first.order("study", "start", python(code.format(f"'{number}'")), parent=tmp_path, key=f"key{number}")
    assert [job.place for job in first.jobs()] == [1, 2, 3]
    again, is_new = first.order("study", "start", python("1"), parent=tmp_path, key="key1")
    assert (again.record.id, is_new) == (first.jobs()[1].record.id, False)
    first.stop(first.jobs()[2].record.id)
    first.open()
    until(lambda: first.jobs()[0].state.name != "waiting")
    first.close()  # its job is not touched
    second = JobQueue(tmp_path / "jobs", 1)
    second.open()
    until(lambda: all(job.state.is_over for job in second.jobs()))
    second.close()
    assert [job.state.name for job in second.jobs()] == ["done", "done", "cancelled"]
    assert out.read_text() == "01"
    with pytest.raises(Refusal, match="is done"):
        second.stop(second.jobs()[0].record.id)
    with pytest.raises(Refusal, match="none with this id"):
        second.stop("nowhere")


def test_one_job_at_a_time_works_on_a_folder(tmp_path):
    queue, target = JobQueue(tmp_path / "jobs", 1), tmp_path / "study"
    target.mkdir()
    with folder_lock(target, Refusal), pytest.raises(Refusal, match="a process works on it already"):
        queue.order("study", "resume", python("1"), parent=tmp_path, target=str(target))
    queue.order("study", "resume", python("1"), parent=tmp_path, target=str(target))
    with pytest.raises(Refusal, match="is waiting for it"):
        queue.order("study", "resume", python("1"), parent=tmp_path, target=str(target))


def test_a_training_is_started_stopped_and_resumed(tmp_path):
    configs = write_configs(tmp_path / "configs", seconds=0.05, epochs=40)
    with client_of(tmp_path / "saved", configs) as client:

        def job():
            return client.get("/api/jobs").json()["jobs"][0]

        body = {"config": "configs/plain.json", "overrides": ["seed=4"]}
        ordered_job = client.post("/api/runs", json=body, headers={"Idempotency-Key": "one"}).json()["job"]
        assert (
            client.post("/api/runs", json=body, headers={"Idempotency-Key": "one"}).json()["job"]["id"]
            == (ordered_job["id"])
        )
        until(lambda: job()["run"] is not None)
        run = job()["run"]
        until(lambda: (client.get(f"/api/runs/{run}").json()["run"]["epochs"] or 0) > 1)
        assert client.get(f"/api/runs/{run}").json()["run"]["job"] == ordered_job["id"]
        twice = client.post(f"/api/runs/{run}/resume", json={})
        assert (twice.status_code, "is running for it" in twice.json()["error"]["message"]) == (409, True)
        client.post(f"/api/runs/{run}/stop", json={})
        until(lambda: job()["state"] == "stopped")
        assert job()["exit_code"] == 143
        assert client.post(f"/api/runs/{run}/stop", json={}).status_code == 409
        (folder,) = (tmp_path / "saved/plain").iterdir()
        config = json.loads((folder / "config.json").read_text())
        assert (config["seed"], config["trainer"]["save_dir"]) == (4, str(tmp_path / "saved"))
        config["trainer"]["epochs"] = len((folder / "metrics.csv").read_text().splitlines())  # one more
        write_json(folder / "config.json", config)
        client.post(f"/api/runs/{run}/resume", json={})
        until(lambda: job()["state"] == "done")
        assert job()["action"] == "resume"
        epochs = [line.partition(",")[0] for line in (folder / "metrics.csv").read_text().splitlines()[1:]]
        assert epochs == [str(number) for number in range(1, len(epochs) + 1)]


@pytest.mark.skipif(not lock_table(), reason="the system does not list its locks")
def test_a_training_that_was_started_elsewhere_is_stopped(tmp_path):
    configs = write_configs(tmp_path / "configs")
    run = tmp_path / "saved/plain/20260101_000000"
    run.mkdir(parents=True)
    write_json(run / "config.json", {"name": "plain", "loss": 0.05, "trainer": {"epochs": 1000}})
    write_json(run / "environment.json", {})
    with client_of(tmp_path / "saved", configs) as client:
        (found,) = client.get("/api/runs").json()["runs"]
        stop = f"/api/runs/{found['id']}/stop"
        refused = client.post(stop, json={})
        assert (refused.status_code, "no process of this machine" in refused.text) == (409, True)
        command, environment = [*PROGRAM, "--resume", run], os.environ | {"PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        until((run / "info.log").exists)
        stopped = client.post(stop, json={})
        assert (stopped.status_code, f"Process {process.pid} saves its state" in stopped.text) == (202, True)
        assert "Interrupted" in process.communicate(timeout=60)[1]
        assert process.returncode == 143


def test_a_study_is_started_and_its_journal_is_complete(tmp_path):
    configs = write_configs(tmp_path / "configs", seconds=0.0)
    with client_of(tmp_path / "saved", configs) as client:
        answer = client.post(
            "/api/studies", json={"config": "configs/sweep.json", "overrides": ["search.num_samples=3"]}
        )
        assert answer.status_code == 202
        until(lambda: client.get("/api/jobs").json()["jobs"][0]["state"] == "done")
        (study,) = find_studies(tmp_path / "saved")
        assert [event.name for event in read_events(study / JOURNAL)][-1] == "study.done"
        (job,) = client.get("/api/jobs").json()["jobs"]
        log = client.get(f"/api/studies/{job['study']}/log").json()
        assert log["text"] == ""
        assert client.get(f"/api/jobs/{job['id']}/log/stream").text.endswith("event: end\nid: 0\ndata: {}\n\n")


def test_answers_by_key_are_removed_after_a_week(tmp_path):
    week = 7 * 86_400
    answers = KeyedAnswers(tmp_path / "keys")
    for key in ("old", "young"):
        answers.once(key, {"command": "add"}, lambda _: {"message": "Noted."})
    old, young = answers._path("old"), answers._path("young")
    for path, age in ((old, week + 60), (young, week - 60)):
        os.utime(path, (time.time() - age,) * 2)
    KeyedAnswers(tmp_path / "keys").once("new", {"command": "add"}, lambda _: {"message": "Noted."})
    assert not old.exists()
    assert young.exists()


def test_a_key_whose_command_was_never_answered_may_order_a_job(tmp_path):
    answers = KeyedAnswers(tmp_path / "keys")

    class Killed(BaseException):
        pass

    def dies(_identity):
        raise Killed

    with pytest.raises(Killed):
        answers.once("one", {"command": "resume"}, dies)
    answers.require_unused("one")
    identities = [json.loads(path.read_text())["identity"] for path in (tmp_path / "keys").iterdir()]
    seen = []
    answers.once("one", {"command": "resume"}, lambda identity: seen.append(identity) or {"message": "Noted."})
    assert seen == identities
    with pytest.raises(Refusal, match="of another request"):
        answers.require_unused("one")
