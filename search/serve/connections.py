"""Connections that send nothing are closed, so that they do not use up the number of those that are served."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS_FOR_A_REQUEST = 10.0  # until the first one's headers have arrived


class ImpatientProtocol(H11Protocol):  # type: ignore[misc]  # not all of its types are known
    """The protocol of uvicorn, which waits for ever for the first request of a connection."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(SECONDS_FOR_A_REQUEST, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()
