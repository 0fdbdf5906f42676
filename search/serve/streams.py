"""Server-sent events: changes of studies, runs and jobs, and outputs as they grow.

Nothing is looked at while nobody listens. Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from typing import Any

from search.serve.refusals import Refusal
from search.serve.run_files import LogPiece

_MOST_STREAMS = 16
_SECONDS = 1.0  # between two looks, or more if a look takes long
_SHARE = 100  # that many times as long as a look takes nothing is looked at
_MOST_SECONDS = 10.0
_SECONDS_TO_END = 0.25  # after which a stream notices the end of the service
_SECONDS_OF_SILENCE = 15.0
_LOG_BYTES = 65_536  # of one event

Json = dict[str, Any]


class Streams:
    """The open streams of a service.

    Args:
        look: Returns studies, runs and jobs as `{"studies": [...], "runs": [...], "jobs": [...]}`, each with an `id`.
        is_closing: Whether the service ends, and all streams with it.
    """

    def __init__(self, look: Callable[[], dict[str, list[Json]]], is_closing: Callable[[], bool]) -> None:
        self._look = look
        self._is_closing = is_closing
        self._num_open = 0
        self._lock = asyncio.Lock()
        self._seen: dict[str, dict[str, Json]] = {}
        self._seen_at = -1.0
        self._seconds = _SECONDS  # between two looks

    def require_room(self) -> None:
        """Raise a `Refusal` if too many streams are open."""
        if self._num_open >= _MOST_STREAMS:
            raise Refusal(503, f"{_MOST_STREAMS} streams are open, the most at a time. Close a page.")

    async def changes(self) -> AsyncIterator[str]:
        """Yield an event for each change of a study, run or job, as long as somebody listens."""
        with self._counted():
            before = await self._present()
            yield event("hello", {})
            silence = 0.0
            while not self._is_closing():
                await self._pause(self._seconds)
                silence += self._seconds
                present = await self._present()
                for kind, found in present.items():
                    data = difference(kind, before[kind], found)
                    if data is not None:
                        silence = 0.0
                        yield event(kind, data)
                before = present
                if silence >= _SECONDS_OF_SILENCE:
                    silence = 0.0
                    yield ": the service lives\n\n"

    async def log(
        self, read: Callable[[int], LogPiece], is_over: Callable[[], bool], offset: int
    ) -> AsyncIterator[str]:
        """Yield an output as it grows.

        Args:
            read: Returns a piece from an offset.
            is_over: Whether nothing more will be written.
            offset: Of the first byte; negative: from the end.
        """
        with self._counted():
            silence = 0.0
            while not self._is_closing():
                ended = await asyncio.to_thread(is_over)  # before it is read: the text written last is not missed
                piece = await asyncio.to_thread(read, offset)
                offset = piece.next_offset
                if piece.text:
                    silence = 0.0
                    yield event("log", {"text": piece.text, "next_offset": offset}, offset)
                elif ended:
                    yield event("end", {}, offset)
                    return
                else:
                    await self._pause(_SECONDS / 2)
                    silence += _SECONDS / 2
                    if silence >= _SECONDS_OF_SILENCE:
                        silence = 0.0
                        yield ": the service lives\n\n"

    async def _pause(self, seconds: float) -> None:
        """Wait, but not past the end of the service."""
        for _ in range(round(seconds / _SECONDS_TO_END)):
            if self._is_closing():
                return
            await asyncio.sleep(_SECONDS_TO_END)

    async def _present(self) -> dict[str, dict[str, Json]]:
        """Return studies, runs and jobs by their ids; all streams share a look."""
        async with self._lock:
            clock = asyncio.get_running_loop().time
            began = clock()
            if began - self._seen_at >= 0.8 * self._seconds:
                found = await asyncio.to_thread(self._look)
                self._seen = {kind: {each["id"]: each for each in items} for kind, items in found.items()}
                self._seen_at = clock()
                self._seconds = min(max(_SECONDS, _SHARE * (self._seen_at - began)), _MOST_SECONDS)
            return self._seen

    @contextmanager
    def _counted(self) -> Any:
        self.require_room()
        self._num_open += 1
        try:
            yield
        finally:
            self._num_open -= 1


def difference(kind: str, before: dict[str, Json], present: dict[str, Json]) -> Json | None:
    """Return the changes as the data of an event; None if there are none."""
    changed = [each for key, each in present.items() if before.get(key) != each]
    removed = [key for key in before if key not in present]
    if not changed and not removed:
        return None
    return {kind: changed} | ({} if kind == "jobs" else {"removed": removed})


def event(name: str, data: Json, number: int | None = None) -> str:
    """Return an event as it is sent."""
    identity = "" if number is None else f"id: {number}\n"
    return f"event: {name}\n{identity}data: {json.dumps(data)}\n\n"
