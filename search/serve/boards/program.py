"""A TensorBoard on a socket that listens already: `python -m search.serve.boards.program FOLDER PREFIX FD PLACE`.

It ends with its standard input, so that it does not outlive the service, and after some time without a request; then
it removes the folder PLACE of its socket.
"""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from tensorboard import default
from tensorboard.program import TensorBoard, TensorBoardServer
from werkzeug.serving import WSGIRequestHandler, make_server

_SECONDS_WITHOUT_A_REQUEST = 600.0
_NICENESS = 10  # searches and trainings go first
_LEFT_OUT = "projector"  # a plug-in: it reads files by paths that a run names

WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


class LastRequest:
    """The monotonic time of the last request."""

    def __init__(self) -> None:
        self.time = time.monotonic()

    def wait(self, seconds: float) -> None:
        """Wait until there was no request for so long."""
        while (left := self.time + seconds - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))


class _SilentHandler(WSGIRequestHandler):
    """Writes errors to the output, but not each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write nothing."""


class SocketServer(TensorBoardServer):  # type: ignore[misc]  # tensorboard has no types
    """The server of TensorBoard on a socket that listens already.

    Args:
        wsgi_app: Answers the requests.
        _flags: Of TensorBoard.
        descriptor: Of the socket.
        last: Notes each request.
    """

    def __init__(self, wsgi_app: WsgiApp, _flags: Any, *, descriptor: int, last: LastRequest) -> None:
        def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            last.time = time.monotonic()
            return wsgi_app(environ, start_response)

        # The name only tells the family of the socket.
        self._server = make_server(
            "unix://board", 0, answer, threaded=True, request_handler=_SilentHandler, fd=descriptor
        )

    def serve_forever(self) -> None:
        """Answer requests until the process ends."""
        self._server.serve_forever()

    def get_url(self) -> str:
        """Return no address: it has none."""
        return ""


def serve(folder: str, prefix: str, descriptor: int, seconds: float = _SECONDS_WITHOUT_A_REQUEST) -> None:
    """Serve the events below a folder until there is no request for some seconds."""
    os.nice(_NICENESS)
    last = LastRequest()
    plugins = [each for each in default.get_static_plugins() if _LEFT_OUT not in each.__module__]
    board = TensorBoard(plugins=plugins, server_class=partial(SocketServer, descriptor=descriptor, last=last))
    # Its fast reader is another process, with an open port.
    board.configure(["", "--logdir", folder, "--path_prefix", prefix, "--load_fast", "false"])
    board.launch()
    last.wait(seconds)


def end_with_the_service(place: str) -> None:
    """End this process when the other end of its standard input is closed."""
    sys.stdin.read()
    shutil.rmtree(place, ignore_errors=True)
    os._exit(0)


def main(folder: str, prefix: str, descriptor: str, place: str, *seconds: str) -> None:
    """Run the command line; the seconds are those of `serve`."""
    threading.Thread(target=end_with_the_service, args=[place], daemon=True).start()
    serve(folder, prefix, int(descriptor), *map(float, seconds))
    shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
