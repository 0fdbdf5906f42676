"""The command that serves: its options, what it refuses, and a stream that ends with it."""

import socket

import httpx
import pytest

import search.serve.command
from search.__main__ import main
from search.serve.command import run_serve, serve_parser
from tests.support.served import listening
from tests.support.served_job import make_study, write_configs
from utils.errors import ConfigError, SearchError
from utils.files import folder_lock


def test_a_missing_package_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(search.serve.command, "find_spec", lambda name: None if name == "uvicorn" else name)
    assert main(["serve", "--folder", str(tmp_path / "saved")]) == 2
    assert capsys.readouterr().err == "error: serve: needs uvicorn. Run pip install fastapi uvicorn.\n"
    assert not (tmp_path / "saved").exists()


def test_one_service_serves_a_folder(tmp_path):
    (tmp_path / ".serve").mkdir()
    with (
        folder_lock(tmp_path / ".serve", SearchError),
        pytest.raises(SearchError, match=r"serves this folder\. Stop it, or use it\."),
    ):
        run_serve(serve_parser().parse_args(["--folder", str(tmp_path), "--port", "0"]))
    assert not (tmp_path / ".serve/token").exists()  # two that begin at once do not make one each
    (tmp_path / "file").touch()
    with pytest.raises(SearchError, match=r"cannot be created \(Not a directory\)\. Name another --folder\."):
        run_serve(serve_parser().parse_args(["--folder", str(tmp_path / "file"), "--port", "0"]))


def test_what_cannot_be_served_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(ConfigError, match=rf"--port {port}: cannot be used"):
            run_serve(serve_parser().parse_args(["--folder", str(tmp_path), "--port", port]))
    with pytest.raises(ConfigError, match=r"nowhere: is no folder\. Name one"):
        run_serve(serve_parser().parse_args(["--folder", str(tmp_path), "--configs", str(tmp_path / "nowhere")]))


def test_a_stream_tells_of_a_new_study_and_ends_with_the_service(tmp_path):
    configs = write_configs(tmp_path / "configs")
    saved = tmp_path / "saved"
    events = []
    with listening(saved, configs) as url:
        token = (saved / ".serve/token").read_text().strip()
        with (
            httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client,
            client.stream("GET", "/api/events") as stream,
        ):
            lines = stream.iter_lines()
            while (line := next(lines)) != "event: studies":
                events.append(line)
                if line == "data: {}":
                    make_study(saved, configs)
            assert '"folder": "sweep/' in next(lines)
    assert events[0] == "event: hello"
