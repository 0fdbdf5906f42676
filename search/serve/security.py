"""Who may use the service: the token in its file, and the checks that every request passes before it is obeyed."""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from search.serve.refusals import Refusal, status_of
from utils.errors import EspalierError, SearchError
from utils.files import sync_folder
from utils.writing.text import in_one_line

logger = logging.getLogger("espalier")

TOKEN = "token"
LOGIN = "/login"
MOST_BODY = 1_000_000  # bytes
_MOST_OPEN_BODY = 10_000  # of a request that needs no token
_MOST_HEADERS = 32_768  # bytes of all headers
_SECONDS_FOR_BODY = 20.0
_LOCAL = ("localhost", "127.0.0.1", "::1")
_FORMS = ("multipart/form-data", "text/plain")  # as TensorBoard sends them
_SAFE_METHODS = ("GET", "HEAD")
_SAME_SITE = ("same-origin", "none")  # values of Sec-Fetch-Site: the page itself, or the user's address line
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def read_or_make_token(folder: Path) -> str:
    """Return the token of the service, made on the first start in a file that only its owner can read.

    Raises:
        SearchError: Others may read the file, or it cannot be written or read.
    """
    path = folder / TOKEN
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # the outputs of jobs, too
        if not path.exists():
            new = folder / f".{TOKEN}.{os.getpid()}.tmp"
            new.unlink(missing_ok=True)
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(f"{secrets.token_urlsafe(32)}\n")
                file.flush()
                os.fsync(file.fileno())
            new.rename(path)
            sync_folder(folder)
        if path.stat().st_mode & 0o077:
            raise SearchError(f"{path}: others may read the token. Run chmod 600 {path}, or remove it for a new one.")
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise SearchError(f"{path}: cannot be used ({error}). Correct its permissions, or remove it.") from error
    if len(token) < 32:
        raise SearchError(f"{path}: a token has 32 characters or more. Remove it for a new one.")
    return token


class Session:
    """The token and the cookie of a login, which follows from it and so outlives a restart.

    Args:
        token: Of the service.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        digest = hashlib.sha256(f"cookie {token}".encode()).hexdigest()
        self.cookie_name = f"espalier_{digest[:12]}"  # cookies do not know ports: each service has its name
        self.cookie_value = hmac.new(token.encode(), b"session", hashlib.sha256).hexdigest()

    def is_token(self, text: str) -> bool:
        """Return whether a text is the token, in a time that does not depend on how much of it is right."""
        return hmac.compare_digest(text.encode("utf-8", "surrogatepass"), self._token.encode())

    def is_cookie(self, text: str) -> bool:
        """Return whether a text is the value of the cookie, see `is_token`."""
        return hmac.compare_digest(text.encode("utf-8", "surrogatepass"), self.cookie_value.encode())


class Guard:
    """Checks each request, adds headers to each answer, and answers an error with one line.

    Args:
        app: The application behind it.
        session: Knows the token.
        host: Address that the service is bound to.
        names: Further names by which it may be reached.
        public: Whether a path is answered without a token.
        forms: Whether a path takes forms, too.
    """

    def __init__(
        self,
        app: App,
        session: Session,
        *,
        host: str,
        names: Sequence[str] = (),
        public: Callable[[str], bool],
        forms: Callable[[str], bool] = lambda _path: False,
    ) -> None:
        self._app = app
        self._session = session
        self._is_loopback = is_loopback(host)
        self._names = {*_LOCAL, host.lower(), *(name.lower() for name in names)}
        if not self._is_loopback:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        self._public = public
        self._forms = forms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            elif scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                given = {name.lower() for name, _ in message.get("headers", ())}
                message["headers"] = [*message.get("headers", ()), *(each for each in _HEADERS if each[0] not in given)]
            await send(message)

        try:
            self._check(scope)
            most = _MOST_OPEN_BODY if self._is_open(scope["path"]) else MOST_BODY
            body = await _read_body(scope, receive, most)
            await self._app(scope, _replay(body, receive), send_with_headers)
        except Exception as error:
            if isinstance(error, EspalierError) and not has_begun:
                await _answer(send_with_headers, status_of(error), str(error))
                return
            reason = in_one_line(f"{type(error).__name__}: {error}")[:500]
            logger.error("%s %s: %s", scope["method"], in_one_line(scope["path"])[:200], reason)
            logger.debug("The request ended in an error.", exc_info=error)
            if not has_begun:
                await _answer(send_with_headers, 500, "The service has an error; its output names it. Try again.")

    def _check(self, scope: Scope) -> None:
        """Raise if a request is refused.

        Raises:
            Refusal: It is.
        """
        headers = scope["headers"]
        if sum(len(name) + len(value) for name, value in headers) > _MOST_HEADERS:
            raise Refusal(431, f"headers: more than {_MOST_HEADERS:,} bytes. Send less.")
        host = _only(headers, b"host")
        self._require_host(host)
        method, path = scope["method"], scope["path"]
        self._require_site(headers, host, is_safe=method in _SAFE_METHODS and not path.startswith("/api/"))
        _require_json(headers, method, takes_forms=self._forms(path))
        if not self._is_open(path) and not self._is_known(headers):
            raise Refusal(401, "no token, or a wrong one. Send Authorization: Bearer TOKEN, or log in: POST /login.")

    def _is_open(self, path: str) -> bool:
        """Return whether a path needs no token."""
        return self._public(path) or path == LOGIN

    def _require_host(self, host: str) -> None:
        name = host_name(host)
        if name in self._names or (not self._is_loopback and _is_address(name)):
            return
        raise Refusal(
            403, f"Host {host[:80]!r}: is no name of this service. Use localhost, or start it with --allow-host NAME."
        )

    def _require_site(self, headers: Any, host: str, *, is_safe: bool) -> None:
        """Raise if another site lets the user's browser send a request."""
        if is_safe:
            return
        site, origin = _only(headers, b"sec-fetch-site", ""), _only(headers, b"origin", "")
        if site and site not in _SAME_SITE:
            raise Refusal(403, f"Sec-Fetch-Site {site[:40]!r}: another site sent the request. Use the service's page.")
        if origin and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            raise Refusal(403, f"Origin {origin[:80]!r}: another site sent the request. Use the service's page.")

    def _is_known(self, headers: Any) -> bool:
        authorization = _only(headers, b"authorization", "")
        if authorization:
            scheme, _, token = authorization.partition(" ")
            return scheme.lower() == "bearer" and self._session.is_token(token.strip())
        # A parser would end at the first cookie that another program on this machine has set in its way.
        cookies = (part.strip().partition("=") for part in _only(headers, b"cookie", "").split(";"))
        return any(name == self._session.cookie_name and self._session.is_cookie(value) for name, _, value in cookies)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def host_name(host: str) -> str:
    """Return the name in a `Host` header, without the port; empty if it is malformed."""
    name, separator, port = host.lower().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1].lower()
    if not separator:
        return host.lower()
    if not (port.isascii() and port.isdecimal()):
        return ""
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _only(headers: Any, name: bytes, default: str | None = None) -> str:
    """Return the value of a header that may occur once.

    Raises:
        Refusal: It occurs several times, or is missing without a default.
    """
    found = [value for key, value in headers if key == name]
    if len(found) == 1:
        return str(found[0].decode("latin-1"))
    if found or default is None:
        raise Refusal(400, f"header {name.decode()}: must be there once, not {len(found)} times.")
    return default


def _require_json(headers: Any, method: str, *, takes_forms: bool) -> None:
    """Raise if a body is no JSON by its header: a form of another site cannot send JSON."""
    if method in _SAFE_METHODS:
        return
    has_body = _only(headers, b"content-length", "0") != "0" or bool(_only(headers, b"transfer-encoding", ""))
    kind = _only(headers, b"content-type", "").partition(";")[0].strip().lower()
    if (has_body or kind) and kind != "application/json" and not (takes_forms and kind in _FORMS):
        raise Refusal(415, f"Content-Type {kind[:60]!r}: a body must be JSON. Send Content-Type: application/json.")


async def _read_body(scope: Scope, receive: Receive, most: int) -> bytes:
    """Return the body of a request.

    Raises:
        Refusal: It is too large, or does not arrive.
    """
    stated = _only(scope["headers"], b"content-length", "0")
    too_large = Refusal(413, f"body: larger than {most:,} bytes. Send less.")
    if not stated.isdecimal() or len(stated) > 12 or int(stated) > most:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(_SECONDS_FOR_BODY):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Refusal(400, "body: the connection ended before it was complete.")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    raise too_large
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise Refusal(408, f"body: did not arrive within {_SECONDS_FOR_BODY:.0f} seconds.") from None


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a function that gives a body that was read already, and then the next messages."""
    waiting = [body]

    async def receive_again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return receive_again


async def _answer(send: Send, status: int, message: str) -> None:
    content = error_content(status, message)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if status in (400, 408, 413):
        headers.append((b"connection", b"close"))  # the rest of a body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def error_content(status: int, message: str) -> bytes:
    """Return the body of the answer to a request that is refused."""
    return json.dumps({"error": {"status": status, "message": in_one_line(message)}}).encode()
