"""Connections that wait with half a request, or none, are closed, as only so many are served at a time."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS_FOR_A_REQUEST = 10.0  # until its headers have arrived


class ImpatientProtocol(H11Protocol):  # type: ignore[misc]  # not all of its types are known
    """The protocol of uvicorn, which waits for ever for the rest of a request's headers."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Begin to wait for the rest of a further request, for which the protocol has just stopped its timer."""
        super().data_received(data)
        if self._timer is None and self._is_between_requests:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        self._timer = self.loop.call_later(SECONDS_FOR_A_REQUEST, self._end)

    def _end(self) -> None:
        self._timer = None
        if self._is_between_requests and not self.transport.is_closing():
            self.transport.close()
