"""The addresses of the service: each calls a function of `Service`. The only module of it that imports FastAPI."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from search.serve.boards.boards import BoardRequest
from search.serve.jobs.allowed import STUDY, TRAINING
from search.serve.page import page_file
from search.serve.refusals import Refusal, status_of
from search.serve.run_files import SentFile
from search.serve.security import LOGIN, Guard, Session, error_content
from search.serve.service import LogSource, Service, log_json
from search.serve.streams import Streams
from utils.errors import EspalierError

Json = dict[str, Any]
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=100)]
Offset = Annotated[int, Query(ge=-(10**12), le=10**12)]
# The page may run its scripts, and is nothing else: no cookie, no request to anywhere.
_REPORT = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
)
_BOARD, _BOARD_THREADS = "tensorboard", 8
_REPAIRS = {404: "List the addresses: GET /openapi.json.", 405: "The methods are in GET /openapi.json."}


class Body(BaseModel):
    """A body of which every key and type is known."""

    model_config = ConfigDict(extra="forbid", strict=True)


class LoginBody(Body):
    """The token."""

    token: str = Field(max_length=1000)


class StartBody(Body):
    """A config and the values to change in it."""

    config: str = Field(max_length=1000)
    overrides: list[Annotated[str, Field(max_length=10_000)]] = Field([], max_length=200)


class EmptyBody(Body):
    """No value."""


class CandidateBody(Body):
    """A candidate; null: the study."""

    candidate: int | None = Field(None, ge=0, le=10**9)


class AddBody(Body):
    """A number of candidates."""

    num_samples: int = Field(ge=1, le=10**6)


class EnqueueBody(Body):
    """Searched values, as PATH=VALUE."""

    values: list[Annotated[str, Field(max_length=10_000)]] = Field(min_length=1, max_length=1000)


def build_app(
    service: Service,
    session: Session,
    *,
    host: str,
    names: Sequence[str] = (),
    is_closing: Callable[[], bool] = lambda: False,
) -> FastAPI:
    """Return the application.

    Args:
        service: Obeys the requests.
        session: Knows the token.
        host: Address that it is bound to.
        names: Further names by which it may be reached.
        is_closing: Whether the service ends, and its streams with it.
    """
    streams = Streams(service.look, is_closing)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.open()
        yield
        service.close()

    app = FastAPI(title="Espalier", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Guard, session=session, host=host, names=names, public=_is_public, forms=_is_of_board)
    app.add_exception_handler(EspalierError, _refused)
    app.add_exception_handler(HTTPException, _not_found)
    app.add_exception_handler(RequestValidationError, _malformed)
    _add_session(app, session)
    _add_reading(app, service)
    _add_logs(app, service, streams)
    _add_boards(app, service)
    _add_changing(app, service)
    describe = app.openapi
    app.openapi = lambda: _corrected(describe())
    return app


def _corrected(description: Json) -> Json:
    """Return the description of the addresses with all parameters of paths, and with 400 for malformed requests."""
    for path, methods in description["paths"].items():
        for operation in methods.values():
            parameters = operation.setdefault("parameters", [])
            known = {each["name"] for each in parameters}
            for name in re.findall(r"{(\w+)}", path):
                if name not in known:
                    schema = {"type": "integer" if name == "number" else "string"}
                    parameters.append({"name": name, "in": "path", "required": True, "schema": schema})
            refusal = {"description": 'Malformed: {"error": {"status": 400, "message": ...}}'}
            operation["responses"] = {
                "400" if key == "422" else key: refusal if key == "422" else each
                for key, each in operation["responses"].items()
            }
    return description


def _is_public(path: str) -> bool:
    return path == "/" or path.startswith("/static/")


def _is_of_board(path: str) -> bool:
    return path.startswith("/api/") and path.split("/")[4:5] == [_BOARD]


def _add_session(app: FastAPI, session: Session) -> None:
    def page() -> Response:
        """The page."""
        return _file("")

    def static(name: str) -> Response:
        """A file of the page."""
        return _file(name)

    def login(body: LoginBody) -> Response:
        """Set the cookie that is used instead of the token."""
        if not session.is_token(body.token.strip()):
            raise Refusal(401, "token: is wrong. Copy it from the file that the service named when it started.")
        answer = _json({"ok": True})
        answer.set_cookie(session.cookie_name, session.cookie_value, httponly=True, samesite="strict")
        return answer

    def logout(_body: EmptyBody | None = None) -> Response:
        """Remove the cookie."""
        answer = _json({"ok": True})
        answer.delete_cookie(session.cookie_name, httponly=True, samesite="strict")
        return answer

    app.add_api_route("/", page, include_in_schema=False)
    app.add_api_route("/static/{name}", static, include_in_schema=False)
    app.add_api_route(LOGIN, login, methods=["POST"])
    app.add_api_route("/logout", logout, methods=["POST"])


def _file(name: str) -> Response:
    found = page_file(name)
    if found is None:
        raise Refusal(404, "there is no such file of the page. Load the page again: GET /.")
    content, media_type, headers = found
    return Response(content, media_type=media_type, headers=headers)


def _add_reading(app: FastAPI, service: Service) -> None:
    def candidates(
        study: str,
        order: Literal["rank", "number"] = "rank",
        status: Annotated[str | None, Query(max_length=40)] = None,
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Response:
        """Return a part of the table of candidates."""
        return _json(service.candidates(study, order, status, offset, limit))

    def candidate(study: str, number: int) -> Response:
        """Return a candidate with the files of its run."""
        return _json(service.candidate(study, number))

    def report(study: str) -> Response:
        """Return the report of a study."""
        headers = {"content-security-policy": _REPORT}
        return _sent(service.report(study), headers)

    def picture(run: str, name: str) -> Response:
        """Return a picture of a run."""
        return _sent(service.picture(run, None, name))

    def candidate_picture(study: str, number: int, name: str) -> Response:
        """Return a picture of a candidate."""
        return _sent(service.picture(study, number, name))

    for path, answer in (
        ("/api/overview", service.overview),
        ("/api/studies", lambda: {"studies": service.look()["studies"]}),
        ("/api/runs", lambda: {"runs": service.look()["runs"]}),
        ("/api/jobs", lambda: {"jobs": service.look()["jobs"]}),
        ("/api/configs", service.allowed_configs),
    ):
        app.add_api_route(path, _answering(answer), name=path.rpartition("/")[2])
    app.add_api_route("/api/studies/{study}", lambda study: _json(service.study(study)), name="study")
    app.add_api_route("/api/studies/{study}/candidates", candidates)
    app.add_api_route("/api/studies/{study}/candidates/{number}", candidate)
    app.add_api_route("/api/studies/{study}/candidates/{number}/pictures/{name}", candidate_picture)
    app.add_api_route("/api/studies/{study}/figures", lambda study: _json(service.figures(study)), name="figures")
    app.add_api_route("/api/studies/{study}/report", report)
    app.add_api_route("/api/runs/{run}", lambda run: _json(service.run(run)), name="run")
    app.add_api_route("/api/runs/{run}/pictures/{name}", picture)
    app.add_api_route("/api/jobs/{job}", lambda job: _json(service.job(job)), name="job")


def _sent(content: SentFile, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    length = {"content-length": str(content.size)}
    return StreamingResponse(content.pieces(), media_type=content.media_type, headers={**headers, **length})


def _answering(answer: Callable[[], Json]) -> Callable[[], Response]:
    """Return a function that answers a request without arguments."""

    def respond() -> Response:
        return _json(answer())

    return respond


def _add_logs(app: FastAPI, service: Service, streams: Streams) -> None:
    async def changes() -> Response:
        """Stream the changes of studies, runs and jobs."""
        streams.require_room()
        return _stream(streams.changes())

    def add(path: str, find: Callable[..., LogSource], name: str) -> None:
        """Add the addresses of an output: a piece of it, and the stream."""

        def piece(request: Request, offset: Offset = -65_536) -> Response:
            return _json(log_json(find(*_ids(request)), offset))

        def stream(
            request: Request,
            offset: Offset = -65_536,
            last: Annotated[int | None, Header(alias="Last-Event-ID", ge=0, le=10**12)] = None,
        ) -> Response:
            streams.require_room()
            source = find(*_ids(request))
            return _stream(streams.log(source.read, source.is_over, offset if last is None else last))

        app.add_api_route(f"{path}/log", piece, name=f"{name} log")
        app.add_api_route(f"{path}/log/stream", stream, name=f"{name} log stream")

    app.add_api_route("/api/events", changes)
    add("/api/jobs/{job}", service.log_of_job, "job")
    add("/api/runs/{run}", service.log_of_run, "run")
    add("/api/studies/{study}", service.log_of_study, "study")
    add("/api/studies/{study}/candidates/{number}", service.log_of_run, "candidate")


def _add_boards(app: FastAPI, service: Service) -> None:
    # Other threads than those of all other requests, as a TensorBoard may take a minute to start.
    threads = ThreadPoolExecutor(_BOARD_THREADS, thread_name_prefix="board")

    def add(kind: str, *, is_study: bool) -> None:
        """Add the addresses of the TensorBoard of each study, or of each run."""

        async def board(request: Request, entry: str, rest: str) -> Response:
            """Return TensorBoard's answer."""
            query = f"?{request.url.query}" if request.url.query else ""
            target = request.scope["raw_path"].decode("latin-1") + query
            prefix = f"/api/{kind}/{entry}/{_BOARD}"
            asked = BoardRequest(prefix, request.method, target, request.headers, await request.body())
            ask = partial(service.board, entry, asked, is_study=is_study)
            answer = await asyncio.get_running_loop().run_in_executor(threads, ask)
            return Response(answer.body, answer.status, answer.headers)

        path = f"/api/{kind}/{{entry}}/{_BOARD}/{{rest:path}}"
        for method in ("GET", "POST"):  # a POST reads, too
            is_shown = method == "GET"
            app.add_api_route(path, board, methods=[method], name=f"{kind} {_BOARD}", include_in_schema=is_shown)

    add("studies", is_study=True)
    add("runs", is_study=False)


def _ids(request: Request) -> list[Any]:
    """Return the ids in an address, in their order."""
    found: Json = dict(request.path_params)
    if "number" in found:
        text = str(found["number"])
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise Refusal(400, f"candidate {text[:40]!r}: must be its number, from 0.")
        found["number"] = int(text)
    return list(found.values())


def _stream(events: AsyncIterator[str]) -> Response:
    return StreamingResponse(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


def _add_changing(app: FastAPI, service: Service) -> None:
    def start_study(body: StartBody, key: Key = None) -> Response:
        """Start a study."""
        return _accepted(service.start(STUDY, body.config, body.overrides, key))

    def start_run(body: StartBody, key: Key = None) -> Response:
        """Start a training."""
        return _accepted(service.start(TRAINING, body.config, body.overrides, key))

    def stop_job(job: str, _body: EmptyBody | None = None) -> Response:
        """Stop a job with its state saved, or cancel it if it waits."""
        return _accepted(service.stop_job(job))

    def stop_run(run: str, _body: EmptyBody | None = None) -> Response:
        """Stop a training with its state saved."""
        return _accepted(service.stop_run(run))

    def resume_run(run: str, _body: EmptyBody | None = None, key: Key = None) -> Response:
        """Continue a training."""
        return _accepted(service.resume(run, TRAINING, key))

    def stop(study: str, body: CandidateBody | None = None) -> Response:
        """Stop a study with its state saved, or give up a candidate."""
        return _accepted(service.command(study, "stop", candidate=body and body.candidate))

    def pause(study: str, body: CandidateBody | None = None) -> Response:
        """Pause a study, or a candidate."""
        return _accepted(service.command(study, "pause", candidate=body and body.candidate))

    def resume(study: str, body: CandidateBody | None = None, key: Key = None) -> Response:
        """Resume a paused study or candidate; if no search runs, continue the study by a job."""
        return _accepted(service.command(study, "resume", candidate=body and body.candidate, key=key))

    def add(study: str, body: AddBody, key: Key = None) -> Response:
        """Let a study try more candidates."""
        return _accepted(service.command(study, "add", key, num_samples=body.num_samples))

    def enqueue(study: str, body: EnqueueBody, key: Key = None) -> Response:
        """Let a study try a known candidate next."""
        return _accepted(service.command(study, "enqueue", key, values=body.values))

    routes: dict[str, Callable[..., Response]] = {
        "/api/studies": start_study,
        "/api/runs": start_run,
        "/api/jobs/{job}/stop": stop_job,
        "/api/runs/{run}/stop": stop_run,
        "/api/runs/{run}/resume": resume_run,
        "/api/studies/{study}/stop": stop,
        "/api/studies/{study}/pause": pause,
        "/api/studies/{study}/resume": resume,
        "/api/studies/{study}/add": add,
        "/api/studies/{study}/enqueue": enqueue,
    }
    for path, function in routes.items():
        app.add_api_route(path, function, methods=["POST"], status_code=202)


def _accepted(content: Json) -> Response:
    return _json(content, 202)


def _json(content: Json, status: int = 200) -> Response:
    """Return an answer in ASCII: a text of a file may hold half a surrogate pair, which UTF-8 does not have."""
    body = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(body, status_code=status, media_type="application/json")


def _error(status: int, message: str) -> Response:
    return Response(error_content(status, message), status_code=status, media_type="application/json")


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, EspalierError)  # as it was registered
    return _error(status_of(error), str(error))


def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # as it was registered
    place = f"{request.method} {request.url.path[:200]}"
    return _error(error.status_code, f"{place}: {error.detail}. {_REPAIRS.get(error.status_code, 'Send JSON.')}")


def _malformed(_request: Request, error: Exception) -> Response:
    """Answer a request whose body or query is malformed, with the place of each fault."""
    assert isinstance(error, RequestValidationError)  # as it was registered
    faults = []
    for each in error.errors()[:5]:
        place = ".".join(str(part)[:80] for part in each["loc"])
        reason = (each.get("ctx") or {}).get("error", "") if each["type"] == "json_invalid" else ""
        faults.append(f"{place}: {each['msg']}{f' ({reason})' if reason else ''}")
    return _error(400, f"{'; '.join(faults)}. Correct it; GET /openapi.json says what is expected.")
