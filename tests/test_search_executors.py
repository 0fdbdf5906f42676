"""What every executor does alike."""

import os
import threading
import time
from contextlib import contextmanager

import pytest

from search.executors import EXECUTORS
from search.executors.base import EpochReported, Executor, Task, TaskFinished, WorkerLost, WorkerStarted, silence
from search.executors.processes import Processes
from search.executors.serial import Serial
from tests.support.slow import slow_unless
from utils.errors import SearchError
from utils.registry import import_attribute

NAMES = sorted(EXECUTORS.entries.keys() - {"table"})  # which has no workers: see test_search_tables.py
pytestmark = pytest.mark.xdist_group("ray")  # with test_search_ray.py: one cluster at a time


def raises(_task):
    raise ValueError("after the last report\nwith details")


class OfWorkerAlone:
    """Is sent, but the search does not know how it is made."""

    def __reduce__(self):
        return import_attribute, ("nowhere.at.all:Thing",)


REASONS = {
    "raises": f"ValueError at test_search_executors.py:{raises.__code__.co_firstlineno + 1}: after the last report",
    "cannot be sent": "TypeError at ",
    "cannot be read": "ModuleNotFoundError at ",
}
FATES = {
    "raises": raises,
    "cannot be sent": lambda _task: {"status": "ended", "result": threading.Lock()},
    "cannot be read": lambda _task: {"status": "ended", "result": OfWorkerAlone()},
    "hangs": lambda _task: time.sleep(1000),
    "devices": lambda task: (
        {"devices": task["devices"], "gpus": task["resources"]["gpus"]}
        | ({"shown": os.environ["CUDA_VISIBLE_DEVICES"]} if "CUDA_VISIBLE_DEVICES" in os.environ else {})
    ),
}


@contextmanager
def worker():
    seen = []

    def work(task, report):
        seen.append(task["text"])
        if task["kind"] in FATES:
            return FATES[task["kind"]](task)
        try:
            answer = report({"text": task["text"]})
        except Exception as error:  # as whatever goes wrong with a candidate is caught
            return {"error": str(error)}
        return {"answer": answer, "seen": list(seen)}

    yield work


@pytest.fixture(params=slow_unless(lambda name: name != "ray", NAMES))
def executor(request, tmp_path):
    made = import_attribute(EXECUTORS.entries[request.param])()
    assert isinstance(made, Executor)
    made.open("tests.test_search_executors:worker", tmp_path)
    yield made
    made.close()


def test_all_executors_are_covered(record_property):
    assert NAMES == ["processes", "ray", "serial"]
    record_property("covered", f"executors: {len(NAMES)}")


def do(executor, tasks, answer):
    received = []

    def handle(message):
        received.append(message)
        return answer(message) if isinstance(message, EpochReported) else ""

    for task in tasks:
        executor.start(task)
        while TaskFinished not in {type(each) for each in received if each.task == task.id}:
            executor.wait(handle, 0.5)
    return received


def test_a_task_starts_reports_receives_the_answer_and_finishes(executor):
    assert executor.idle == 1
    received = do(executor, [Task("7", "echo", {"text": "one"})], lambda report: report.message["text"] * 2)
    assert received == [
        WorkerStarted("7"),
        EpochReported("7", {"text": "one"}),
        TaskFinished("7", {"answer": "oneone", "seen": ["one"]}),
    ]
    assert executor.idle == 1


def test_a_worker_lives_from_one_task_to_the_next(executor):
    received = do(
        executor, [Task("1", "echo", {"text": "a"}), Task("2", "echo", {"text": "b"})], lambda _report: "continue"
    )
    assert received[-1].outcome["seen"] == ["a", "b"]


def test_what_ends_the_search_is_not_taken_for_a_fault_of_the_task(executor):
    def refuse(_report):
        raise SearchError("no such objective")

    with pytest.raises(SearchError, match="no such objective"):
        do(executor, [Task("1", "echo", {"text": "a"})], refuse)


def test_no_workers_are_refused():
    with pytest.raises(SearchError, match=r"workers 0 must be 1 or more"):
        import_attribute(EXECUTORS.entries["processes"])(0)


def test_whatever_a_task_fails_at_is_its_outcome(executor):
    fates = ["raises"] if isinstance(executor, Serial) else ["raises", "cannot be sent", "cannot be read"]
    for fate in fates:
        received = do(executor, [Task(fate, fate, {"text": ""})], None)
        assert [type(each) for each in received] == [WorkerStarted, TaskFinished]
        assert received[-1].outcome["status"] == "failed"
        assert received[-1].outcome["reason"].startswith(REASONS[fate])
    assert executor.idle == 1


def test_a_worker_that_was_ended_for_its_silence_is_reported_as_hung(executor):
    received, ends_at = [], EpochReported if isinstance(executor, Serial) else WorkerStarted

    def handle(message):
        received.append(message)
        if isinstance(message, ends_at):
            executor.abandon("1", 7)
        return ""

    executor.start(Task("1", "echo" if isinstance(executor, Serial) else "hangs", {"text": ""}))
    while not isinstance(received[-1] if received else None, WorkerLost):
        executor.wait(handle, 0.5)
    assert received[-1] == WorkerLost("1", "it reported nothing for 7 s and was ended", "hung")
    assert do(executor, [Task("2", "echo", {"text": "next"})], lambda _report: "continue")[-1].outcome["answer"]


def test_the_span_of_a_silence_is_in_seconds():
    assert silence(0.5) == "it reported nothing for 0.5 s and was ended"
    assert silence(None) == "it reported nothing for too long and was ended"


@pytest.mark.parametrize(
    ("made", "workers", "devices"),
    [
        (lambda: Processes(2, devices=["0", "1", "2", "3"], threads=1), 2, [["0", "1"], ["2", "3"]]),
        (lambda: Processes(2, devices=["0", "1", "2"], threads=1), 2, [["0", "1"], ["2", "0"]]),
        (lambda: Processes(1, devices=["cpu"], threads=1), 1, [["cpu", "cpu"]]),
        (lambda: Processes(1, threads=1), 1, [None]),
        (lambda: Serial(device="2,3"), 1, [["2", "3"]]),
        (Serial, 1, [None]),
    ],
)
def test_a_task_of_two_gpus_gets_two_of_the_devices(tmp_path, made, workers, devices):
    executor = made()
    executor.open("tests.test_search_executors:worker", tmp_path)
    received = []
    for number in range(workers):
        executor.start(Task(f"{number}", "devices", {"text": ""}, resources={"gpus": 2}))
    while sum(isinstance(each, TaskFinished) for each in received) < workers:
        executor.wait(received.append, 0.5)
    executor.close()
    found = sorted((each.task, each.outcome) for each in received if isinstance(each, TaskFinished))
    assert [(outcome["devices"], outcome["gpus"]) for _, outcome in found] == [(each, 2) for each in devices]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Processes(4, devices=["0"]), r"gpus 2, and the executor has 1 for a candidate \(0\)"),
        (lambda: Serial(device="3"), r"gpus 2, and the executor has 1 for a candidate \(3\)"),
    ],
)
def test_more_gpus_than_there_are_are_refused(made, message):
    executor = made()
    executor.check_resources({})
    executor.check_resources({"gpus": 1})
    with pytest.raises(SearchError, match=message):
        executor.check_resources({"gpus": 2})


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"gpu": 2}, r'search.resources: "gpu" is no resource of a task'),
        ({"gpus": 1.5}, r"search.resources: gpus 1.5 must be a whole number"),
        ({"gpus": 0.5}, r"search.resources: gpus 0.5 must be a whole number"),
    ],
)
def test_resources_that_mean_nothing_are_refused(resources, message):
    with pytest.raises(SearchError, match=message):
        Processes(1).check_resources(resources)
