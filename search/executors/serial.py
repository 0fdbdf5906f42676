"""One candidate after the other, in this process."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from search.executors.base import Begun, Ended, Executor, Handler, Told, Work
from utils.registry import import_attribute


class Serial(Executor):
    """Runs each work in this process. What hangs or takes the process with it takes the search with it.

    Args:
        device: Of the training, e.g. "0" or "cpu"; the config's `n_gpu` where not given.
    """

    in_this_process = True

    def __init__(self, *, device: str | None = None) -> None:
        self._device = device
        self._function: Any = None
        self._life = ExitStack()
        self._waiting: Work | None = None

    def open(self, worker: str, folder: Path) -> None:
        """Import what it does; what it prints is seen here."""
        del folder
        self._function = self._life.enter_context(import_attribute(worker)())

    @property
    def idle(self) -> int:
        """One where nothing waits."""
        return int(self._waiting is None)

    def start(self, work: Work) -> None:
        """Keep it for `wait`."""
        self._waiting = work

    def wait(self, handle: Handler, timeout: float) -> None:
        """Run the work to its end; the handler is called from within it."""
        del timeout
        work, self._waiting = self._waiting, None
        if work is None:
            return
        task = work.task | {"worker": 0, "device": self._device, "threads": None}
        raised: list[Exception] = []

        def report(message: dict[str, Any]) -> str:
            try:
                return handle(Told(work.number, message))
            except Exception as error:
                raised.append(error)
                raise

        handle(Begun(work.number))
        outcome = self._function(task, report)
        if raised:  # the work took for its own what ends the search
            raise raised[0]
        handle(Ended(work.number, outcome))

    def abandon(self, number: int) -> None:
        """Nothing runs when this could be called."""

    def interrupt(self) -> None:
        """Nothing runs when this could be called: the signal itself reaches the training."""

    def close(self) -> None:
        """Let go of what was kept between works."""
        self._life.close()
