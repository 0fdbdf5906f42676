"""Requests that the service refuses, each with one line: without a token, from other sites, too large, malformed."""

import asyncio
import json
import os
import stat

import pytest

from search.serve.refusals import Refusal
from search.serve.security import MOST_BODY, TOKEN, Guard, Session, host_name, is_loopback, read_or_make_token
from tests.support.served import client_of
from tests.support.served_job import write_configs
from utils.errors import SearchError

READ = (
    *("overview", "studies", "studies/x", "studies/x/candidates", "studies/x/candidates/0", "studies/x/figures"),
    *(
        "studies/x/report",
        "studies/x/log",
        "runs",
        "runs/x",
        "runs/x/log",
        "runs/x/log/stream",
        "runs/x/pictures/a.png",
    ),
    *("configs", "jobs", "jobs/x", "jobs/x/log", "events"),
)
CHANGED = (
    *("studies", "runs", "jobs/x/stop", "studies/x/stop", "studies/x/pause", "studies/x/resume", "studies/x/add"),
    *("studies/x/enqueue", "runs/x/stop", "runs/x/resume"),
)
CLIMBING = (
    *("/api/runs/../../../etc/passwd", "/api/runs/%2e%2e%2f%2e%2e%2fetc%2fpasswd/log", "/api/runs/..%2f..%2fetc/log"),
    *("/api/studies/%2fetc%2fpasswd", "/api/jobs/..%2f..%2ftoken/log", "/api/jobs/.%2e/log", "/api/jobs/%00/log"),
    *("/api/runs/x/pictures/..%2f..%2fconfig.json", "/api/jobs/..", "/api/jobs/.../log", "/static/..%2f..%2fapp.py"),
    *(
        "/static/%2fetc%2fpasswd",
        "/.serve/token",
        "/static/../service.py",
        "/api/runs/%ff%fe",
        "/api/studies/" + "a" * 5000,
    ),
)
WRONG_TOKENS = (
    *({}, {"authorization": "Bearer "}, {"authorization": "Bearer wrong"}, {"authorization": "Basic dXNlcjpwYXNz"}),
    *({"authorization": "TOKEN"}, {"authorization": "Bearer {half}"}, {"cookie": "espalier_000000000000=1"}),
    *({"cookie": "{cookie}=wrong"}, {"cookie": "{cookie}={token}"}, {"cookie": "\x01;;="}, {"x-token": "{token}"}),
    *({"authorization": "Bearer {token}x"}, {"authorization": "bearer{token}"}),
)
HOSTS = (
    *(
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
    ),
    *("10.0.0.7:8000", "[::2]:8000", "", "localhost:8000:9", "localhost:port", "127.0.0.1/../evil", "0x7f000001"),
)
SITES = (
    *({"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:1"}, {"origin": "file://"}),
    *({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "http://127.0.0.1.evil.example"}),
)
BODIES = (
    *(
        "{",
        "[]",
        "null",
        '"text"',
        "{}",
        '{"config": 1}',
        '{"config": "a", "x": 1}',
        '{"config": "a", "overrides": "b"}',
    ),
    *('{"config": "a", "overrides": [1]}', '{"config": null}', "[" * 5000, '{"config": "' + "a" * 2000 + '"}', "\xff"),
    *('{"config": NaN}', '{"config": ' + "9" * 6000 + "}", '{"config": "a", "overrides": [["a"]]}', "config=a", ""),
)
UNSTORABLE = (
    "name=a\0b",
    "search.run_dir=a\0b",
    "search.\0=1",
    "name=\ud800",
    'name="a\\u0000b"',
    "$extends=/etc/hostname",
)
KINDS = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/jsonx")
COMMANDS = (
    ("add", '{"num_samples": "2"}'),
    ("add", '{"num_samples": 1.5}'),
    ("add", '{"num_samples": -1}'),
    ("add", '{"num_samples": true}'),
    ("enqueue", '{"values": []}'),
    ("enqueue", '{"values": {"a": 1}}'),
    ("stop", '{"candidate": -1}'),
    ("stop", '{"candidate": "0"}'),
    ("pause", '{"candidate": 1e3}'),
    ("resume", '{"candidates": 1}'),
)


def hostile():
    """(method, path, headers, body, status) of every request; those with a token get it by `authorization` None."""
    for name in READ:
        yield "GET", f"/api/{name}", {"authorization": ""}, None, 401
    for name in CHANGED:
        yield "POST", f"/api/{name}", {"authorization": ""}, "{}", 401
    for path in CLIMBING:
        yield "GET", path, {}, None, 404
    for headers in WRONG_TOKENS:
        yield "GET", "/api/overview", {"authorization": "", **headers}, None, 401
    for host in HOSTS:
        yield "GET", "/", {"host": host}, None, 403
    for headers in SITES:
        yield "POST", "/api/studies", headers, "{}", 403
    yield "GET", "/api/overview", {"sec-fetch-site": "cross-site"}, None, 403
    yield "POST", "/login", {"origin": "http://evil.example"}, '{"token": "x"}', 403
    yield "POST", "/login", {}, '{"token": "wrong"}', 401
    yield "POST", "/login", {}, '{"token": ["x"]}', 400
    for body in BODIES:
        yield "POST", "/api/studies", {}, body, 400
    for text in UNSTORABLE:
        yield "POST", "/api/studies", {}, json.dumps({"config": "configs/sweep.json", "overrides": [text]}), 400
    for kind in KINDS:
        yield "POST", "/api/studies", {"content-type": kind}, '{"config": "a"}', 415
    for command, body in COMMANDS:
        yield "POST", f"/api/studies/x/{command}", {}, body, 400
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        yield method, "/api/studies", {}, None, 405
    yield "POST", "/api/studies", {}, "a" * (MOST_BODY + 1), 413
    yield "POST", "/api/studies", {"content-length": "99999999999999"}, "{}", 413
    yield "POST", "/api/studies", {"content-length": "-1"}, "{}", 413
    yield "GET", "/api/studies/x/candidates?limit=100000", {}, None, 400
    yield "GET", "/api/studies/x/candidates?order=name", {}, None, 400
    yield "GET", "/api/jobs/x/log?offset=1e9", {}, None, 400
    yield "GET", "/api/studies/x/candidates/-1/log", {}, None, 400
    yield "GET", "/api/studies/x/candidates/zero", {}, None, 400


HOSTILE = list(hostile())


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    with client_of(folder / "saved", write_configs(folder / "configs")) as found:
        found.guard_cookie = Session((folder / "saved/.serve" / TOKEN).read_text().strip()).cookie_name
        yield found


@pytest.fixture
def token(client):
    return (client.service.folder / ".serve" / TOKEN).read_text().strip()


def cookie_of(client, token):
    (name, value) = next(iter(client.post("/login", json={"token": token}).cookies.items()))
    client.cookies.clear()
    return name, value


def test_there_are_a_hundred_hostile_requests():
    assert len(HOSTILE) >= 100


@pytest.mark.parametrize("request_sent", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_request_is_refused_in_one_line(request_sent, client, token, caplog):
    method, path, headers, body, status = request_sent
    known = {"token": token, "half": token[:20], "cookie": client.guard_cookie}
    given = {"content-type": "application/json"} if body is not None else {}
    given |= {name: value.format(**known) if "{" in value else value for name, value in headers.items()}
    given = {name: value.encode("latin-1") for name, value in given.items() if value or name != "content-type"}
    content = body.encode("latin-1") if isinstance(body, str) else body
    answer = client.request(method, path, headers=given, content=content)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["status"] == status
    assert error["message"].endswith((".", "json"))
    assert "\n" not in error["message"]
    assert "Traceback" not in answer.text
    assert token not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not caplog.records
    assert client.service.queue.jobs() == []


def test_a_login_sets_a_cookie_that_opens_the_service(client, token):
    answer = client.post("/login", json={"token": token}, headers={"authorization": ""})
    flags = answer.headers["set-cookie"].lower()
    assert "httponly" in flags
    assert "samesite=strict" in flags
    assert token not in flags
    client.cookies.clear()
    name, value = cookie_of(client, token)
    bare = {"authorization": "", "cookie": f"{name}={value}"}
    assert client.get("/api/overview", headers={"cookie": f"{name}={value}"}).status_code == 200
    del client.headers["authorization"]
    try:
        assert client.get("/api/overview", headers={"cookie": bare["cookie"]}).status_code == 200
        assert client.get("/api/overview").status_code == 401
        others = 'x={"a": "b"}; y=a b; path=1; ' + bare["cookie"]  # of other programs at this address
        assert client.get("/api/overview", headers={"cookie": others}).status_code == 200
        assert client.post("/logout", headers={"cookie": bare["cookie"]}).json() == {"ok": True}
    finally:
        client.headers["authorization"] = f"Bearer {token}"


def test_the_page_needs_no_token_and_its_own_requests_pass(client):
    assert client.get("/", headers={"authorization": ""}).status_code == 200
    headers = {"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin", "host": "127.0.0.1"}
    assert client.post("/api/studies", json={"config": "x"}, headers=headers).status_code == 404  # no such config
    assert client.get("/api/overview", headers={"host": "localhost:9000"}).status_code == 200  # through a tunnel


def test_the_token_is_made_once_for_its_owner_alone(tmp_path):
    token = read_or_make_token(tmp_path / ".serve")
    path = tmp_path / ".serve" / TOKEN
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(token) >= 43
    assert read_or_make_token(tmp_path / ".serve") == token
    path.chmod(0o640)
    with pytest.raises(SearchError, match=r"others may read the token\. Run chmod 600"):
        read_or_make_token(tmp_path / ".serve")
    path.unlink()
    path.touch(0o600)
    with pytest.raises(SearchError, match="32 characters"):
        read_or_make_token(tmp_path / ".serve")


def test_an_error_after_the_beginning_of_an_answer_begins_no_second_one(caplog):
    sent = []

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise Refusal(409, "info.log: is a pipe.")

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message["type"])

    guard = Guard(app, Session("a" * 40), host="127.0.0.1", public=lambda _path: True)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")]}
    asyncio.run(guard(scope, receive, send))
    assert sent == ["http.response.start"]
    assert "info.log: is a pipe." in caplog.text


def test_hosts():
    names = [host_name(text) for text in ("LocalHost", "a.b:80", "[::1]:80", "[::1]", "a:b")]
    assert names == ["localhost", "a.b", "::1", "::1", ""]
    assert is_loopback("127.0.0.5")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("evil.localhost")


def test_links_lead_nowhere(client, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/config.json").write_text(json.dumps({"name": "secret"}))
    (tmp_path / "elsewhere/metrics.csv").write_text("epoch\n")
    saved = client.service.folder
    run = saved / "linked/20260101_000000"
    run.mkdir(parents=True)
    os.symlink(tmp_path / "elsewhere", saved / "link")
    os.symlink(tmp_path / "elsewhere/config.json", run / "config.json")
    (run / "metrics.csv").write_text("epoch\n1\n")
    os.symlink("/etc/passwd", run / "info.log")
    (run / "pictures").mkdir()
    os.symlink("/etc/passwd", run / "pictures/a.png")
    (found,) = client.get("/api/runs").json()["runs"]
    assert found["folder"] == "linked/20260101_000000"
    assert client.get(f"/api/runs/{found['id']}/log").status_code == 409
    assert client.get(f"/api/runs/{found['id']}/pictures/a.png").status_code == 404
    assert "is a link" in client.get(f"/api/runs/{found['id']}").json()["error"]["message"]
