"""A TensorBoard that listens on a socket which it is given: `python -m search.serve.boards.program FOLDER PREFIX FD`.

It ends with its standard input, so that it does not outlive the service, and after some time without a request.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from tensorboard.program import TensorBoard, TensorBoardServer
from werkzeug.serving import BaseWSGIServer, make_server

SECONDS_WITHOUT_A_REQUEST = 600.0
_NICENESS = 10  # searches and trainings go first

WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


class SocketServer(TensorBoardServer):  # type: ignore[misc]  # tensorboard has no types
    """The server of TensorBoard on a socket that listens already.

    Args:
        wsgi_app: Answers the requests.
        _flags: Of TensorBoard.
    """

    descriptor: int
    last_request = 0.0

    def __init__(self, wsgi_app: WsgiApp, _flags: Any) -> None:
        def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            SocketServer.last_request = time.monotonic()
            return wsgi_app(environ, start_response)

        # The name only tells the family of the socket.
        self._server: BaseWSGIServer = make_server("unix://board", 0, answer, threaded=True, fd=self.descriptor)
        self._server.log = lambda *_words: None  # type: ignore[method-assign]

    def serve_forever(self) -> None:
        """Answer requests until the process ends."""
        self._server.serve_forever()

    def get_url(self) -> str:
        """Return no address: it has none."""
        return ""


def serve(folder: str, prefix: str, descriptor: int) -> None:
    """Serve the events below a folder until nobody asks any more."""
    os.nice(_NICENESS)
    SocketServer.descriptor = descriptor
    board = TensorBoard(server_class=SocketServer)
    # Its fast reader is another process with an open port of its own.
    board.configure(["", "--logdir", folder, "--path_prefix", prefix, "--load_fast", "false"])
    SocketServer.last_request = time.monotonic()
    board.launch()
    while time.monotonic() - SocketServer.last_request < SECONDS_WITHOUT_A_REQUEST:
        time.sleep(1)


def end_with_the_service() -> None:
    """End this process when the other end of its standard input is closed."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_the_service, daemon=True).start()
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
