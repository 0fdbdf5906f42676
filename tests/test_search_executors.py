"""What every executor does alike."""

from contextlib import contextmanager

import pytest

from search.executors import EXECUTORS
from search.executors.base import EpochReported, Executor, Task, TaskFinished, WorkerStarted
from utils.errors import SearchError
from utils.registry import import_attribute

NAMES = sorted(EXECUTORS.entries)
pytestmark = pytest.mark.xdist_group("ray")  # with test_search_ray.py: one cluster at a time


@contextmanager
def worker():
    seen = []

    def work(task, report):
        seen.append(task["text"])
        try:
            answer = report({"text": task["text"]})
        except Exception as error:  # as whatever goes wrong with a candidate is caught
            return {"error": str(error)}
        return {"answer": answer, "seen": list(seen)}

    yield work


@pytest.fixture(params=NAMES)
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
