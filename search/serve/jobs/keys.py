"""Answers by the `Idempotency-Key` of their requests: a request that is sent again is not obeyed again."""

import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from search.serve.refusals import Refusal
from search.study.commands import new_identity
from utils.errors import EspalierError, SearchError
from utils.files import read_json_object, write_json

Json = dict[str, Any]

_SECONDS_KNOWN = 7 * 86_400  # an answer is removed afterwards
_OF_ANOTHER = "Idempotency-Key: is that of another request. Send a new key with each request."
_SECONDS_BETWEEN_REMOVALS = 3_600


class KeyedAnswers:
    """Answers of commands to studies, a file for each key, which is removed after a week.

    Args:
        folder: Of the files; created with the first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()  # held while a request with a key is obeyed
        self._removed_at = -float("inf")  # monotonic time

    def find(self, key: str | None, request: Json) -> Json | None:
        """Return the answer to an earlier request with the same key; None if there was none.

        Args:
            key: Of the request; None: it has none.
            request: Plain data by which requests are compared.

        Raises:
            Refusal: That request was another one.
        """
        if key is None:
            return None
        answer: Json | None = self._known(key, request).get("answer")
        return answer

    def _known(self, key: str, request: Json) -> Json:
        """Return the data stored for a request with a key; nothing if it is new."""
        content = self._stored(key)
        if content and content.get("request") != request:
            raise Refusal(409, _OF_ANOTHER)
        return content

    def _stored(self, key: str) -> Json:
        return read_json_object(self._path(key), lambda reason: SearchError(f"{reason}. Remove it."))

    def require_unused(self, key: str | None) -> None:
        """Raise a `Refusal` if the key is that of a command that was obeyed."""
        if key is not None and "answer" in self._stored(key):
            raise Refusal(409, _OF_ANOTHER)

    def once(self, key: str | None, request: Json, obey: Callable[[str | None], Json]) -> Json:
        """Return the answer of `find`, else obey a request and store its answer.

        The identity of the command is stored before it is obeyed: after a kill in between it has the same one again.

        Args:
            key: Of the request; None: it has none.
            request: As for `find`.
            obey: Called with the identity of the command; None without a key.

        Raises:
            Refusal: The key is that of another request.
            EspalierError: The request is not obeyed.
        """
        if key is None:
            return obey(None)
        with self._lock:
            known = self._known(key, request)
            answer: Json | None = known.get("answer")
            if answer is None:
                identity: str = known.get("identity") or new_identity()
                stored = {"request": request, "identity": identity}
                self._store(key, stored)
                try:
                    answer = obey(identity)
                except EspalierError:  # it is not obeyed
                    self._path(key).unlink(missing_ok=True)
                    raise
                self._store(key, {**stored, "answer": answer})
                with suppress(OSError):
                    self._remove_old()
            return answer

    def _store(self, key: str, content: Json) -> None:
        with suppress(OSError):  # a full disk: a request that is sent again after a kill is obeyed again
            self.folder.mkdir(exist_ok=True)
            write_json(self._path(key), content)

    def _remove_old(self) -> None:
        if time.monotonic() - self._removed_at < _SECONDS_BETWEEN_REMOVALS:
            return
        self._removed_at = time.monotonic()
        for path in self.folder.glob("*.json"):
            if time.time() - path.stat().st_mtime > _SECONDS_KNOWN:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
