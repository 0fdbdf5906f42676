"""What every executor does alike."""

from contextlib import contextmanager

import pytest

from search.executors import EXECUTORS
from search.executors.base import Begun, Ended, Executor, Told, Work
from utils.errors import SearchError
from utils.registry import import_attribute

NAMES = sorted(EXECUTORS.entries)


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


def do(executor, works, answer):
    happened = []

    def handle(happening):
        happened.append(happening)
        return answer(happening) if isinstance(happening, Told) else ""

    for work in works:
        executor.start(work)
        while Ended not in {type(each) for each in happened if each.number == work.number}:
            executor.wait(handle, 0.5)
    return happened


def test_a_work_begins_tells_hears_the_answer_and_ends(executor):
    assert executor.idle == 1
    happened = do(executor, [Work(7, {"text": "one"})], lambda told: told.message["text"] * 2)
    assert happened == [Begun(7), Told(7, {"text": "one"}), Ended(7, {"answer": "oneone", "seen": ["one"]})]
    assert executor.idle == 1


def test_a_worker_lives_from_one_work_to_the_next(executor):
    happened = do(executor, [Work(1, {"text": "a"}), Work(2, {"text": "b"})], lambda _told: "continue")
    assert happened[-1].outcome["seen"] == ["a", "b"]


def test_what_ends_the_search_is_not_taken_for_a_fault_of_the_work(executor):
    def refuse(_told):
        raise SearchError("no such objective")

    with pytest.raises(SearchError, match="no such objective"):
        do(executor, [Work(1, {"text": "a"})], refuse)


def test_no_workers_are_refused():
    with pytest.raises(SearchError, match=r"workers 0 must be 1 or more"):
        import_attribute(EXECUTORS.entries["processes"])(0)
