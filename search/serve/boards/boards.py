"""The TensorBoards that run, and the requests that are handed to them."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path

from search.serve.refusals import Refusal
from utils.environment import REPOSITORY

_PROGRAM = (sys.executable, "-m", "search.serve.boards.program")
_MOST = 2  # that run at once
_SECONDS = 60.0  # for an answer; the first one waits for the start
_SECONDS_TO_SEE_AN_END = 0.5  # after a connection broke
_SECONDS_TO_END = 5.0
_ASKED = ("accept", "accept-encoding", "content-type")  # headers that are handed on, and those of an answer
_POLICY = "content-security-policy"
_ANSWERED = ("content-type", "content-encoding", "location", _POLICY)
_MOST_BYTES = 32_000_000  # of an answer
_BY_HAND = "Try again, or run tensorboard --logdir FOLDER."


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
    """A TensorBoard in a separate process. Only this user reaches its socket, which lies in a private folder.

    Args:
        folder: Folder of the events.
        prefix: Path that all its addresses begin with.

    Attributes:
        num_requests: Requests that it answers at present.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self.num_requests = 0
        self._last_line: str | None = None
        self._place = Path(tempfile.mkdtemp(prefix="board"))
        self._socket = str(self._place / "socket")
        try:
            with socket.socket(socket.AF_UNIX) as listening, (self._place / "output").open("wb") as output:
                listening.bind(self._socket)
                listening.listen(64)  # requests wait here until it has started
                descriptor = listening.fileno()
                self._process = subprocess.Popen(
                    [*_PROGRAM, str(folder), prefix, str(descriptor), str(self._place)],
                    cwd=REPOSITORY,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    pass_fds=[descriptor],
                )
        except OSError:
            shutil.rmtree(self._place, ignore_errors=True)
            raise

    def has_ended(self, seconds: float = 0.0) -> bool:
        """Return whether its process has ended, or ends within some seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def has_ended_well(self) -> bool:
        """Whether it ended by itself, after some time without a request."""
        return self._process.returncode == 0

    def reason(self) -> str:
        """Return the last line of its output."""
        if self._last_line is not None:
            return self._last_line
        with suppress(OSError):
            lines = (self._place / "output").read_text(encoding="utf-8", errors="replace").strip().splitlines()
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
                raise HTTPException(f"its answer has more than {_MOST_BYTES:,} bytes")
            if answer.length:
                raise HTTPException(f"its answer lacks {answer.length:,} bytes")
            found = {key: value for key in _ANSWERED if (value := answer.getheader(key)) is not None}
            rules = [rule for rule in found.get(_POLICY, "default-src 'none'").split(";") if "ancestors" not in rule]
            found[_POLICY] = ";".join([*rules, "frame-ancestors 'self'"])
            return BoardAnswer(answer.status, found, content)
        finally:
            connection.close()

    def close(self) -> None:
        """End the process."""
        self._last_line = self.reason()  # a request that it broke off may ask for it
        self._process.kill()  # it writes nothing
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_SECONDS_TO_END)
        if self._process.stdin is not None:
            self._process.stdin.close()
        shutil.rmtree(self._place, ignore_errors=True)


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
    """At most two TensorBoards: a third one ends the one whose last request is the oldest."""

    def __init__(self) -> None:
        self._running: OrderedDict[str, Board] = OrderedDict()
        self._lock = threading.Lock()
        self._is_closed = False

    def ask(self, folder: Path, request: BoardRequest) -> BoardAnswer:
        """Hand a request to the TensorBoard of a folder of events, which is started if it does not run.

        Raises:
            Refusal: It cannot be started, does not answer, or all are busy.
        """
        if find_spec("tensorboard") is None:
            raise Refusal(503, "TensorBoard is not installed. Run pip install tensorboard.")
        while True:
            with self._board(folder, request.prefix) as board:
                try:
                    return board.ask(request)
                except (OSError, HTTPException) as error:
                    has_ended = board.has_ended(_SECONDS_TO_SEE_AN_END)
                    if has_ended and board.has_ended_well:
                        continue  # in the same moment: another one is started
                    reason = (board.reason() if has_ended else "") or str(error) or type(error).__name__
                    raise Refusal(503, f"TensorBoard does not answer: {reason}. {_BY_HAND}") from error

    @contextmanager
    def _board(self, folder: Path, prefix: str) -> Iterator[Board]:
        """Give the TensorBoard of a folder, which does not end for another one meanwhile."""
        board = self._take(prefix)
        if board is None:
            require_no_links(folder)  # without the lock: a large folder takes a while
            board = self._take(prefix, folder)
        assert board is not None  # it was started
        try:
            yield board
        finally:
            with self._lock:
                board.num_requests -= 1

    def _take(self, prefix: str, folder: Path | None = None) -> Board | None:
        """Return the TensorBoard that runs; if none does, a new one, or None without a folder."""
        ended: list[Board] = []
        try:
            with self._lock:
                if self._is_closed:
                    raise Refusal(503, "The service ends. Start it again.")
                ended += [self._running.pop(key) for key, each in [*self._running.items()] if each.has_ended()]
                found = self._running.pop(prefix, None)
                if found is None:
                    if folder is None:
                        return None
                    ended += self._made_room()
                    found = Board(folder, prefix)
                self._running[prefix] = found
                found.num_requests += 1
                return found
        except OSError as error:
            raise Refusal(503, f"TensorBoard cannot be started ({error}). {_BY_HAND}") from error
        finally:
            for each in ended:
                each.close()

    def _made_room(self) -> list[Board]:
        """Return the TensorBoards that end for another one."""
        if len(self._running) < _MOST:
            return []
        idle = next((key for key, each in self._running.items() if not each.num_requests), None)
        if idle is None:
            raise Refusal(503, f"{_MOST} TensorBoards are busy, the most at a time. {_BY_HAND}")
        return [self._running.pop(idle)]

    def close(self) -> None:
        """End all, and start no more."""
        with self._lock:
            self._is_closed = True
            ended = [*self._running.values()]
            self._running.clear()
        for each in ended:
            each.close()


def require_no_links(folder: Path) -> None:
    """Raise a `Refusal` if there is a link below a folder: TensorBoard would follow it out of the folder."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink():
                raise Refusal(
                    409,
                    f"{path.relative_to(folder)}: is a link, and TensorBoard would follow it to other folders. Run "
                    "tensorboard --logdir FOLDER.",
                )
