"""docs/serve.md: each of its curl commands is run, and each address of the service is in one of them."""

import json
import re
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager

import httpx
import pytest

from search.serve import connections
from search.serve.command import serve_parser
from search.study.folders import find_studies
from tests.support.pages import PAGES
from tests.support.served import listening, prepare
from tests.support.served_job import train
from utils.errors import SearchError
from utils.files import folder_lock, write_json

TEXT = PAGES["serve.md"]
COMMANDS = [line.partition("  #")[0].strip() for line in TEXT.splitlines() if line.startswith("curl ")]
SETTINGS = "\n".join(line for line in TEXT.splitlines() if line.startswith(("token=", "umask 077; auth=")))


@contextmanager
def world(folder):
    """A service whose study seems to run, with a run, pictures, and jobs that wait."""
    saved, configs = prepare(folder)
    run = saved / "plain/20260101_000000"
    run.mkdir(parents=True)
    write_json(run / "config.json", {"name": "plain", "trainer": {"epochs": 1}})
    train(run, {"trainer": {"epochs": 1}}, 0.0)
    (study,) = find_studies(saved / "sweep")
    for place in (run, study / "candidates/00000"):
        (place / "pictures").mkdir(parents=True)
        (place / "pictures/a.png").write_bytes(b"\x89PNG")
    with listening(saved, configs, num_jobs=0) as url:
        token = (saved / ".serve/token").read_text().strip()
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}) as client:
            found = client.get("/api/overview").json()
            ids = {"study": found["studies"][0]["id"], "run": found["runs"][0]["id"], "picture": "a.png"}
            client.post(f"/api/studies/{ids['study']}/resume", json={})  # whose output is that of the study
            client.post(f"/api/runs/{ids['run']}/resume", json={})
            started = client.post("/api/runs", json={"config": "configs/plain.json"}).json()["job"]["id"]
            client.post(f"/api/jobs/{client.get('/api/jobs').json()['jobs'][2]['id']}/stop", json={})
            ids |= {"job": started, "study_config": "configs/sweep.json", "run_config": "configs/plain.json"}
            with folder_lock(study, SearchError):
                yield url, ids, client


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Each command with its answer, and the description of the addresses."""
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("the commands need curl and bash")
    folder = tmp_path_factory.mktemp("world")
    with world(folder) as (url, ids, client):
        lines = [SETTINGS.replace("http://127.0.0.1:8000", url), *(f"{name}={value}" for name, value in ids.items())]
        for command in COMMANDS:
            lines += [command.replace("--max-time 2", "--max-time 0.3"), "printf '\\n@@@@\\n'"]
        done = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=folder, capture_output=True, check=False)
        assert done.stderr == b""
        outputs = done.stdout.decode(errors="replace").split("\n@@@@\n")[:-1]
        return dict(zip(COMMANDS, outputs, strict=True)), client.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_is_obeyed(command, answers):
    answer = answers[0][command]
    if "/stream" in command or "/events" in command:
        assert answer.startswith("event: " if "/candidates" not in command and "/studies" not in command else "")
        assert '"error"' not in answer
    elif "/report" in command:
        assert answer.startswith("<!DOCTYPE html>")
    elif "/tensorboard/" in command:
        assert "<tb-webapp>" in answer
    elif "/pictures/" in command:
        assert answer.endswith("PNG")
    else:
        assert "error" not in json.loads(answer), answer


def test_each_address_is_in_a_command(answers):
    addresses = {
        (method, path) for path, methods in answers[1].items() for method in methods if path not in ("/openapi.json",)
    }
    assert len(addresses) > 30
    for method, path in addresses:
        pattern = re.sub(r"\{\w+\}", r"[^/ ]+", path)
        found = [each for each in COMMANDS if re.search(rf"\$url{pattern}(?=[ \"?]|$)", each)]
        sends = [each for each in found if "-d " in each or "-X POST" in each]
        assert sends if method == "post" else set(found) - set(sends), f"{method} {path} is in no command"


def test_each_option_is_in_the_table():
    flags = set(re.findall(r"--[\w-]+", serve_parser().format_help())) - {"--help", "--debug"}
    assert {flag for flag in flags if f"`{flag}" not in TEXT} == set()


def test_a_connection_that_sends_no_request_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "SECONDS_FOR_A_REQUEST", 0.3)
    with listening(tmp_path / "saved", tmp_path) as url:
        place = ("127.0.0.1", int(url.rpartition(":")[2]))
        for begun in (b"", b"GET / HTTP/1.1\r\nHost: "):
            with socket.create_connection(place, timeout=20) as opened:
                opened.sendall(begun)
                assert opened.recv(100) == b""
        with socket.create_connection(place, timeout=20) as opened:
            kind = b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n"
            opened.sendall(b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\n" + kind)
            time.sleep(0.6)  # a body may take longer
            opened.sendall(b"{}")
            assert opened.recv(1000).startswith(b"HTTP/1.1 400")
        with socket.create_connection(place, timeout=20) as opened:
            opened.sendall(b"GET /static/dom.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}\n"):
                answer += opened.recv(100_000)
            opened.sendall(b"GET / HTTP")  # half of a further one
            assert opened.recv(100) == b""


def test_requests_that_are_no_http_are_refused(tmp_path):
    saved, configs = tmp_path / "saved", tmp_path
    with listening(saved, configs) as url:
        place = ("127.0.0.1", int(url.rpartition(":")[2]))
        for request, status in (
            (b"GET /\r\n\r\n", b"400"),
            (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
            (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n", b"400"),
            (b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", b"403"),
            (b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", b"403"),
            (b"GET /static/../service.py HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", b"404"),
            (b"GET /../.serve/token HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", b"401"),
            (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", b"431"),
            (b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999999999\r\n\r\n", b"415"),
        ):
            with socket.create_connection(place, timeout=20) as opened:
                opened.sendall(request)
                answer = opened.recv(100)
            assert answer.split(b" ")[1] == status, (request[:60], answer)
