"""TensorBoard behind the token of the service."""

import socket
import stat
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from search.serve.boards import boards
from search.serve.boards.boards import BoardRequest, Boards
from search.serve.refusals import Refusal
from tests.support.served import client_of, prepare
from utils.files import write_json


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    saved, configs = prepare(tmp_path_factory.mktemp("served"))
    for name in ("one", "two", "three"):
        run = saved / name / "20260101_000000"
        run.mkdir(parents=True)
        write_json(run / "config.json", {"name": name, "trainer": {"epochs": 3, "monitor": "max val_miou"}})
        write_json(run / "environment.json", {})
        with SummaryWriter(run) as writer:
            writer.add_scalar(f"loss of {name}", 0.5, 1)
    with client_of(saved, configs) as found:
        runs = found.get("/api/runs").json()["runs"]
        found.runs = {run["name"]: f"/api/runs/{run['id']}/tensorboard" for run in runs}
        yield found


def test_a_run_is_seen_in_its_tensorboard_with_the_token_alone(client):
    board = client.runs["one"]
    page = client.get(f"{board}/")
    assert page.status_code == 200
    assert "<title>TensorBoard</title>" in page.text
    assert "frame-ancestors 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert client.get(f"{board}/data/plugin/scalars/tags").json()["."].keys() == {"loss of one"}
    query = {"requests": (None, '[{"plugin": "scalars", "tag": "loss of one"}]')}
    (found,) = client.post(f"{board}/data/plugin/timeseries/timeSeries", files=query).json()
    assert [point["value"] for point in found["runToSeries"]["."]] == [0.5]
    refused = client.get(f"{board}/", headers={"authorization": "Bearer wrong"})
    assert refused.status_code == 401
    elsewhere = client.post(
        f"{board}/data/plugin/timeseries/timeSeries", files=query, headers={"origin": "http://evil"}
    )
    assert elsewhere.status_code == 403
    forms = client.post("/api/studies", files=query)
    assert forms.status_code == 415


def test_only_a_run_or_study_of_the_folder_has_one(client):
    study = client.get("/api/studies").json()["studies"][0]["id"]
    assert client.get(f"/api/studies/{study}/tensorboard/data/environment").status_code == 200
    assert client.get(f"/api/runs/{study}/tensorboard/").status_code == 404
    assert client.get("/api/runs/unknown/tensorboard/").status_code == 404
    assert client.get(f"{client.runs['one']}/../../../../etc/passwd").status_code in {401, 404}


def test_a_third_one_ends_that_which_was_asked_the_longest_ago(client):
    running = client.service.boards._running
    for name in ("one", "two", "one", "three"):
        assert client.get(f"{client.runs[name]}/data/environment").status_code == 200
    assert list(running) == [client.runs["one"], client.runs["three"]]


def test_one_that_was_killed_is_started_again(client):
    board = client.runs["two"]
    assert client.get(f"{board}/data/environment").status_code == 200
    process = client.service.boards._running[board]._process
    process.kill()
    process.wait()
    assert client.get(f"{board}/data/environment").status_code == 200


@pytest.fixture
def replaced(monkeypatch):
    """Return a function that puts another program in the place of TensorBoard."""

    def replace(*command):
        monkeypatch.setattr(boards, "_PROGRAM", command)
        found = Boards()
        made.append(found)
        return found

    made = []
    yield replace
    for each in made:
        each.close()


REQUEST = BoardRequest("/api/runs/1f/tensorboard", "GET", "/api/runs/1f/tensorboard/", {}, b"")


def test_one_that_does_not_start_is_an_error_with_its_reason(tmp_path, replaced):
    found = replaced("sh", "-c", "echo no such module >&2; exit 1", "sh")
    with pytest.raises(Refusal, match=r"TensorBoard does not answer: no such module\. Run pip install tensorboard"):
        found.ask(tmp_path, REQUEST)


def test_its_socket_lies_in_a_private_folder_that_goes_with_it(tmp_path, replaced):
    found = replaced("sh", "-c", "sleep 60", "sh")
    board = found._board(tmp_path, "/x")
    place = Path(board._socket).parent
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(board._socket)
    found.close()
    assert not board.is_alive
    assert not place.exists()
