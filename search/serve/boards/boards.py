"""The TensorBoards that run, and the requests that are handed to them."""

import socket
import subprocess
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path

from search.serve.refusals import Refusal
from utils.environment import REPOSITORY

_PROGRAM = (sys.executable, "-m", "search.serve.boards.program")
_MOST = 2  # that run at once
_SECONDS = 60.0  # for an answer; the first one waits for the start
_ASKED = ("accept", "accept-encoding", "content-type")  # headers that are handed on, and those of an answer
_POLICY = "content-security-policy"
_ANSWERED = ("content-type", "content-encoding", "location", _POLICY)
_MOST_BYTES = 256_000_000  # of an answer
_REPAIR = "Run pip install tensorboard, and try again; until then: tensorboard --logdir FOLDER."


@dataclass(frozen=True)
class BoardRequest:
    """A request to a TensorBoard.

    Attributes:
        prefix: Path that all its addresses begin with, such as "/api/runs/1f/tensorboard".
        method: "GET" or "POST".
        target: Path and query.
        headers: All of them; case does not matter.
        body: Its bytes.
    """

    prefix: str
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class BoardAnswer:
    """The answer of a TensorBoard.

    Attributes:
        status: Of HTTP.
        headers: The few that are handed on.
        body: Its bytes.
    """

    status: int
    headers: dict[str, str]
    body: bytes


class Board:
    """A TensorBoard in a process of its own. Nobody but this user reaches its socket, which lies in a private folder.

    Args:
        folder: Folder of the events.
        prefix: Path that all its addresses begin with.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="board")
        self._socket = str(Path(self._place.name) / "socket")
        self._output = Path(self._place.name) / "output"
        with socket.socket(socket.AF_UNIX) as listening, self._output.open("wb") as output:
            listening.bind(self._socket)
            listening.listen(64)  # requests wait here until it has started
            descriptor = listening.fileno()
            self._process = subprocess.Popen(
                [*_PROGRAM, str(folder), prefix, str(descriptor)],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[descriptor],
            )

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    def reason(self) -> str:
        """Return the last line of its output."""
        with suppress(OSError):
            lines = self._output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return lines[-1][:300] if lines else ""
        return ""

    def ask(self, request: BoardRequest) -> BoardAnswer:
        """Hand a request on, and return its answer.

        Raises:
            OSError: The process ended, or did not answer in time.
            HTTPException: Its answer is malformed.
        """
        connection = _SocketConnection(self._socket)
        try:
            headers = {key: request.headers[key] for key in _ASKED if key in request.headers}
            connection.request(request.method, request.target, request.body or None, headers)
            answer = connection.getresponse()
            content = answer.read(_MOST_BYTES + 1)
            if len(content) > _MOST_BYTES:
                raise HTTPException(f"more than {_MOST_BYTES:,} bytes")
            found = {key: value for key in _ANSWERED if (value := answer.getheader(key)) is not None}
            rules = [rule for rule in found.get(_POLICY, "").split(";") if "frame-ancestors" not in rule]
            found[_POLICY] = ";".join([*rules, "frame-ancestors 'self'"])
            return BoardAnswer(answer.status, found, content)
        finally:
            connection.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()  # it writes nothing
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._place.cleanup()


class _SocketConnection(HTTPConnection):
    """A connection to a socket in the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(self._path)


class Boards:
    """At most two TensorBoards: a third one ends that which was asked the longest ago."""

    def __init__(self) -> None:
        self._running: OrderedDict[str, Board] = OrderedDict()
        self._lock = threading.Lock()

    def ask(self, folder: Path, request: BoardRequest) -> BoardAnswer:
        """Hand a request to the TensorBoard of a folder of events, which is started if it does not run.

        Raises:
            Refusal: It does not start, or does not answer.
        """
        board = self._board(folder, request.prefix)
        try:
            return board.ask(request)
        except (OSError, HTTPException) as error:
            reason = board.reason() or str(error) or type(error).__name__
            raise Refusal(503, f"TensorBoard does not answer: {reason}. {_REPAIR}") from error

    def _board(self, folder: Path, prefix: str) -> Board:
        if find_spec("tensorboard") is None:
            raise Refusal(503, f"TensorBoard is not installed. {_REPAIR}")
        with self._lock:
            found = self._running.pop(prefix, None)
            if found is not None and not found.is_alive:
                found.close()
                found = None
            if found is None:
                self._end_all_but(_MOST - 1)
                found = Board(folder, prefix)
            self._running[prefix] = found
            return found

    def _end_all_but(self, count: int) -> None:
        while len(self._running) > count:
            self._running.popitem(last=False)[1].close()

    def close(self) -> None:
        """End all."""
        with self._lock:
            self._end_all_but(0)
