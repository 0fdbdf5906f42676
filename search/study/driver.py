"""The loop of a search: keeps workers busy, watches for those that hang, and stops in good order when asked to."""

import time

from search.executors.base import Begun, Ended, Executor, Happening, Told
from search.study.searching import Phase
from utils import signals
from utils.errors import Interrupted

_STOP_SIGNALS = ("SIGINT", "SIGTERM")
_TICK = 0.5  # seconds between two looks at clock and signals
_SECONDS_TO_SAVE = 60.0  # that workers have when the search is interrupted


class Driver:
    """Runs phases on an executor.

    Args:
        executor: Open.
        max_epoch_time: Seconds without a word after which a worker hangs; None: never.
    """

    def __init__(self, executor: Executor, max_epoch_time: float | None = None) -> None:
        self.executor = executor
        self.max_epoch_time = max_epoch_time
        self._phase: Phase | None = None
        self._heard: dict[int, float] = {}
        self._signal: int | None = None

    def run(self, phase: Phase) -> None:
        """Bring a phase to its end, or to where its budget is spent.

        Raises:
            Interrupted: A signal asked to stop; every worker has saved its state.
            SearchError: What the phase has to complain of.
        """
        self._phase, self._heard = phase, {}
        with signals.noted(_STOP_SIGNALS, lambda: self._signal is not None, self._note):
            while self._signal is None:
                self._hand_out(phase)
                if not phase.running:
                    break
                self.executor.wait(self._hear, _TICK)
                self._abandon_hanging()
            if self._signal is not None:
                self._let_save(phase)
                raise Interrupted(self._signal)

    def _hand_out(self, phase: Phase) -> None:
        while self.executor.idle:
            work = phase.next_work()
            if work is None:
                return
            self.executor.start(work)

    def _hear(self, happening: Happening) -> str:
        assert self._phase is not None
        if isinstance(happening, Begun):
            self._heard[happening.number] = time.monotonic()
            return ""
        if isinstance(happening, Told):
            answer = self._phase.hear(happening)
            self._heard[happening.number] = time.monotonic()
            return answer
        self._heard.pop(happening.number, None)
        if isinstance(happening, Ended) and self.executor.in_this_process:
            self._signal = happening.outcome.get("signal", self._signal)  # it was the training that caught it
        return self._phase.hear(happening)

    def _abandon_hanging(self) -> None:
        if self.max_epoch_time is None:
            return
        for number, heard in list(self._heard.items()):
            if time.monotonic() - heard > self.max_epoch_time:
                self._heard.pop(number)
                self.executor.abandon(number)

    def _let_save(self, phase: Phase) -> None:
        """Wait for the workers to save; those that take too long are ended, and their epoch is trained again."""
        phase.is_pausing = True
        self.executor.interrupt()
        deadline = time.monotonic() + _SECONDS_TO_SAVE
        while phase.running and time.monotonic() < deadline:
            self.executor.wait(self._hear, _TICK)

    def _note(self, number: int) -> None:
        self._signal = number
