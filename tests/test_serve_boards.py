"""TensorBoard behind the token of the service."""

import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from search.serve.boards import boards
from search.serve.boards.boards import BoardRequest, Boards
from search.serve.refusals import Refusal
from tests.support.served import client_of, prepare
from utils.environment import REPOSITORY
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
    plain = {"content-type": "text/plain"}  # as its page of hyperparameters asks
    asked = client.post(f"{board}/data/plugin/hparams/experiment", content="{}", headers=plain)
    assert asked.status_code != 415
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
    for path in ("/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2f..%2fetc%2fpasswd", "/data/../../../../token"):
        assert client.get(f"{client.runs['one']}{path}").status_code in {400, 401, 404}, path


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


@pytest.mark.parametrize("seconds", [None, 0.5], ids=["with the service", "without a request"])
def test_one_ends(tmp_path, seconds):
    place = tmp_path / "place"
    place.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "socket"))
        listening.listen()
        words = [*boards._PROGRAM, str(tmp_path), "/x", str(listening.fileno()), str(place)]
        process = subprocess.Popen(
            words if seconds is None else [*words, str(seconds)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            pass_fds=[listening.fileno()],
        )
    if seconds is None:
        process.stdin.close()
    assert process.wait(timeout=120) == 0
    process.stdin.close()
    assert not place.exists()


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
    with pytest.raises(Refusal, match=r"TensorBoard does not answer: no such module\. Try again, or run tensorboard"):
        found.ask(tmp_path, REQUEST)


def test_its_socket_lies_in_a_private_folder_that_goes_with_it(tmp_path, replaced):
    found = replaced("sh", "-c", "sleep 60", "sh")
    with found._board(tmp_path, "/x") as board:
        pass
    place = Path(board._socket).parent
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(board._socket)
    found.close()
    assert board.has_ended()
    assert not place.exists()


def test_a_folder_with_a_link_is_not_shown(tmp_path, replaced):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/elsewhere").symlink_to("/")
    with pytest.raises(Refusal, match=r"run/elsewhere: is a link, and TensorBoard would follow it"):
        replaced("false").ask(tmp_path, REQUEST)


def test_what_cannot_be_started_or_is_busy_is_refused(tmp_path, replaced):
    with pytest.raises(Refusal, match=r"TensorBoard cannot be started \(.*no such program.*\)"):
        replaced("/no such program").ask(tmp_path, REQUEST)
    found = replaced("sh", "-c", "sleep 60", "sh")
    for name in ("one", "two"):
        with found._board(tmp_path, name) as board:
            board.num_requests += 1  # as if one were not answered yet
    with pytest.raises(Refusal, match="2 TensorBoards are busy"):
        found.ask(tmp_path, REQUEST)


def test_an_answer_that_breaks_off_is_an_error(tmp_path, replaced):
    program = """
import socket, sys
connection = socket.socket(fileno=int(sys.argv[3])).accept()[0]
connection.recv(1000)
connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 100\\r\\n\\r\\nshort")
connection.close()
sys.stdin.read()
"""
    with pytest.raises(Refusal, match="its answer lacks 95 bytes"):
        replaced(sys.executable, "-c", program).ask(tmp_path, REQUEST)


def test_one_that_ended_by_itself_is_started_again(tmp_path, replaced):
    program = """
import pathlib, socket, sys
connection = socket.socket(fileno=int(sys.argv[3])).accept()[0]
connection.recv(1000)
known = pathlib.Path(sys.argv[1], "known")
if known.exists():
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nagain")
    sys.stdin.read()
known.touch()
"""
    found = replaced(sys.executable, "-c", program)
    assert found.ask(tmp_path, REQUEST).body == b"again"
    found.close()
    with pytest.raises(Refusal, match="The service ends"):
        found.ask(tmp_path, REQUEST)
