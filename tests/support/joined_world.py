"""Processes that share a study, in a world whose clock stands still while they compute: no wall clock, no sleep.

Each process is a group of threads, of which one runs at a time: until it sleeps, or touches a shared file. Chance
decides how long that takes. A killed group never runs again, and nothing of it is tidied up; a frozen one runs again
later.
"""

import heapq
import itertools
import os
import random
import threading
from collections import deque
from dataclasses import dataclass, field

import search.joining.timing as shared_files
from search.executors.base import EpochReported, Executor, TaskFinished, WorkerLost, WorkerStarted
from search.joining import leading
from search.joining.timing import Timing
from search.study.journal import Journal
from tests.support.search_worker import run as run_task
from utils.errors import SearchError

PATIENCE = 30.0
EPOCH_SECONDS = 7.0


class Ended(BaseException):
    """Ends the threads of killed groups when the test is over."""


@dataclass(eq=False)
class Thread:
    group: str
    function: object
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    error: BaseException | None = None
    is_over: bool = False


class World:
    """A clock, and the threads that wait for it."""

    def __init__(self, seed=0):
        self.now, self.chance = 0.0, random.Random(seed)
        self.queue, self.numbers = [], itertools.count()
        self.killed, self.frozen, self.all_threads = set(), {}, []
        self.current, self.control = None, threading.Semaphore(0)
        self.is_over = False

    def timing(self, group, patience=PATIENCE):
        def start(function):
            self.start(group, function)

        return Timing(patience, 0.25, lambda: self.now, self.sleep, start, lambda: Lock(self))

    def start(self, group, function):
        thread = Thread(group, function)
        self.all_threads.append(thread)

        def run():
            thread.turn.acquire()
            try:
                if not self.is_over:
                    function()
            except Ended:
                pass
            except BaseException as error:  # for the test to see
                thread.error = error
            thread.is_over = True
            self.control.release()

        threading.Thread(target=run, daemon=True).start()
        heapq.heappush(self.queue, (self.now, next(self.numbers), thread))
        return thread

    def sleep(self, seconds):
        thread = self.current
        heapq.heappush(self.queue, (self.now + seconds, next(self.numbers), thread))
        self.control.release()
        thread.turn.acquire()
        if self.is_over:
            raise Ended

    def is_killed(self, group):
        """Whether it was killed, or the process that has started it: its name begins with that one's."""
        return bool({group, group.split()[0]} & self.killed)

    def touch(self):
        """A shared file is touched, which takes a moment; anything may happen meanwhile."""
        if self.current is not None and threading.current_thread() is not threading.main_thread():
            self.sleep(self.chance.uniform(0, 0.05))

    def run(self, until, *events):
        """Run until a condition holds; each event is (seconds, function)."""
        for seconds, event in events:
            heapq.heappush(self.queue, (seconds, next(self.numbers), event))
        while not until():
            assert self.queue, "nothing runs any more"
            when, _, thread = heapq.heappop(self.queue)
            assert when < 50_000, "it does not come to an end"
            self.now = max(self.now, when)
            if not isinstance(thread, Thread):
                thread()
                continue
            if self.is_killed(thread.group):
                continue
            if self.frozen.get(thread.group, 0) > self.now:
                heapq.heappush(self.queue, (self.frozen[thread.group], next(self.numbers), thread))
                continue
            self.current = thread
            thread.turn.release()
            self.control.acquire()
            self.current = None
            if thread.error is not None and not isinstance(thread.error, Exception):
                raise thread.error

    def close(self):
        self.is_over = True
        for thread in self.all_threads:
            if not thread.is_over:
                thread.turn.release()
                self.control.acquire()


class Lock:
    """A lock between threads that take turns."""

    def __init__(self, world):
        self.world, self.is_held = world, False

    def __enter__(self):
        while self.is_held:
            self.world.sleep(0.01)
        self.is_held = True

    def __exit__(self, *_):
        self.is_held = False


class SlowFiles:
    """The functions of `os` that shared files are written with, each of which takes a moment."""

    def __init__(self, world):
        self._world = world

    def replace(self, source, target):
        self._world.touch()
        os.replace(source, target)
        self._world.touch()


def slow_down(monkeypatch, shared):
    """Let files and journal of a shared study take time; its `pause` is called within each transaction."""
    monkeypatch.setattr(shared_files, "os", SlowFiles(shared.world))
    monkeypatch.setattr(leading, "Journal", slow_journal(shared))


class Workers(Executor):
    """Workers of a member, threads of its group; each task is that of tests.support.search_worker."""

    def __init__(self, world, group, count, tokens):
        self.world, self.group, self.count, self.tokens = world, group, count, tokens
        self.running, self.messages = {}, deque()

    def open(self, worker, folder):
        pass

    @property
    def idle(self):
        return self.count - len(self.running)

    def start(self, task):
        assert self.idle > 0
        self.running[task.id] = state = {"answer": None, "is_interrupted": False, "is_dead": False}
        world, folder, token = self.world, task.payload["folder"], task.payload["token"]

        def check():
            """What a worker does before it writes into the run folder."""
            if state["is_dead"]:
                raise Ended
            if self.tokens[folder] != token:
                assert world.frozen, "two attempts in one run folder"
                raise LookupError("another attempt has the folder")

        def report(message):
            if "epoch" in message:
                world.sleep(world.chance.uniform(0.5, 1.5) * EPOCH_SECONDS)
            check()
            if state["is_interrupted"]:
                raise InterruptedError
            self.messages.append(EpochReported(task.id, message))
            while state["answer"] is None:
                world.sleep(0.2)
            answer, state["answer"] = state["answer"], None
            check()
            return answer

        def work():
            world.sleep(world.chance.uniform(0, 1))
            self.tokens[folder] = max(token, self.tokens.get(folder, 0))
            self.messages.append(WorkerStarted(task.id))
            try:
                outcome = run_task(task.as_message(), report)
            except InterruptedError:
                outcome = {"status": "interrupted", "signal": 15}
            except LookupError as error:
                outcome = {"status": "failed", "reason": str(error)}
            self.messages.append(TaskFinished(task.id, outcome))

        world.start(self.group, work)

    def wait(self, handle, timeout):
        until = self.world.now + timeout
        while not self.messages and self.world.now < until:
            self.world.sleep(0.2)
        while self.messages:
            message = self.messages.popleft()
            if message.task not in self.running:
                continue
            if isinstance(message, EpochReported):
                self.running[message.task]["answer"] = handle(message)
                continue
            if isinstance(message, TaskFinished | WorkerLost):
                del self.running[message.task]
            handle(message)

    def abandon(self, task, silent_seconds=None):
        self.running[task]["is_dead"] = True
        self.messages.append(WorkerLost(task, "ended", "hung"))

    def interrupt(self):
        for state in self.running.values():
            state["is_interrupted"] = True

    def close(self):
        for state in self.running.values():
            state["is_dead"] = True
        self.running.clear()


def slow_journal(shared):
    """A journal whose events take a moment."""
    world = shared.world

    class SlowJournal(Journal):
        def __init__(self, path, *, wal, guard):
            def check():
                guard()
                shared.pause()

            super().__init__(path, wal=wal, guard=check)
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.execute("PRAGMA busy_timeout = 0")

        def append(self, name, candidate=None, **data):
            world.touch()
            while True:
                try:
                    event = super().append(name, candidate, **data)
                except SearchError as error:
                    if "locked" not in str(error):
                        raise
                    world.sleep(0.2)  # SQLite itself would wait by the real clock
                    continue
                world.touch()
                return event

    return SlowJournal
