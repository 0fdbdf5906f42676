"""The latency of a network: the shortest of many forward passes, while no other worker measures."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from filelock import FileLock

WARM_UPS = 3
PASSES = 15  # of a round
STABLE_ROUNDS = 3  # without a new minimum, after which it counts as found
STABLE_SHARE = 0.01  # a minimum that is lower by less is no new one
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


def shortest_pass(
    run: Callable[[], object], *, min_seconds: float = 0.5, clock: Callable[[], float] = perf_counter
) -> float:
    """Return the shortest duration of a function, repeated in rounds until the minimum is stable.

    Whatever else the machine does makes a pass longer and never shorter: the minimum is the latency of the network.

    Args:
        run: Runs the network once, and waits for its device.
        min_seconds: Seconds over which the passes are spread, at least.
        clock: Returns the time in seconds.

    Returns:
        Milliseconds.
    """
    for _ in range(WARM_UPS):
        run()
    best, stable, began = float("inf"), 0, clock()
    while stable < STABLE_ROUNDS or clock() - began < min_seconds:
        before = best
        for _ in range(PASSES):
            started = clock()
            run()
            best = min(best, clock() - started)
        stable = stable + 1 if best > (1 - STABLE_SHARE) * before else 0
        if clock() - began > MOST_SECONDS:
            break
    return 1000 * best
