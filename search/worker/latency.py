"""The latency of a network: the shortest of many forward passes, while no other worker measures."""

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from filelock import FileLock

try:
    import resource
except ImportError:  # not on this system
    resource = None  # type: ignore[assignment]

WARM_UPS = 3
PASSES = 15  # at least
AGREEING = 5  # shortest passes that agree, after which their minimum counts as found
AGREEMENT = 1.05  # the longest of them in terms of the shortest
MOST_SECONDS = 10.0


@contextmanager
def alone_on_machine() -> Iterator[None]:
    """Let no other process of this user measure on this machine during a block.

    Other trainings continue: to stop all of them for each measurement would cost more than it gives. The minimum of
    many passes meets a moment in which they wait.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    try:
        lock = FileLock(Path(tempfile.gettempdir()) / f"espalier-latency-{user}.lock")
        lock.acquire()
    except OSError:  # a file system without locks
        yield
        return
    try:
        yield
    finally:
        lock.release()


def interruptions() -> int:
    """Return how often the system has taken a processor from a thread of this process; 0 if it does not say."""
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def shortest_pass(
    run: Callable[[], object],
    *,
    min_seconds: float = 0.5,
    clock: Callable[[], float] = perf_counter,
    count_interruptions: Callable[[], int] = interruptions,
) -> float:
    """Return the shortest duration of a function, repeated until the shortest passes agree.

    Any other work of the machine makes a pass longer and never shorter: the minimum is the latency of the network.
    Passes in which the system took the processor away count only if there are no others.

    Args:
        run: Runs the network once, and waits for its device.
        min_seconds: Seconds over which the passes are spread, at least.
        clock: Returns the time in seconds.
        count_interruptions: Returns how often the process was interrupted.

    Returns:
        Milliseconds.
    """
    for _ in range(WARM_UPS):
        run()
    quiet: list[float] = []  # the shortest undisturbed passes
    shortest, passes, began = math.inf, 0, clock()
    while clock() - began < MOST_SECONDS:
        before, started = count_interruptions(), clock()
        run()
        seconds = clock() - started
        shortest, passes = min(shortest, seconds), passes + 1
        if count_interruptions() == before:
            quiet = sorted([*quiet, seconds])[:AGREEING]
        agree = len(quiet) == AGREEING and quiet[-1] <= AGREEMENT * quiet[0]
        if agree and passes >= PASSES and clock() - began >= min_seconds:
            break
    return 1000 * (quiet[0] if quiet else shortest)
