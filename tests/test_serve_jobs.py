"""Jobs of the service: each runs once, survives the service, and says why it ended."""

import json
import os
import sys
import time

import pytest

from search.serve.jobs.files import (
    ENDED,
    LOG,
    STARTED,
    STOP,
    JobRecord,
    claim,
    read_state,
    request_stop,
    write_job,
)
from search.serve.jobs.queue import JobQueue
from search.serve.jobs.supervisor import supervise
from search.serve.refusals import Refusal
from search.study.folders import find_studies
from search.study.journal import JOURNAL, read_events
from tests.support.served import client_of
from tests.support.served_job import write_configs
from utils.files import folder_lock, write_json
from utils.runs.locks import is_held


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
    first.close()  # its job goes on
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
