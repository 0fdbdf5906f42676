"""The API of the service: studies, runs, candidates, outputs, commands."""

import json
import os
import re
import shutil
import sqlite3
from contextlib import closing, suppress

import pytest

from search.serve.run_files import open_picture
from search.serve.streams import difference, event
from search.serve.summaries import finite_json
from search.study.commands import waiting_commands
from search.study.folders import find_studies
from search.study.journal import JOURNAL
from tests.support.served import client_of, prepare
from tests.support.served_job import train, write_configs
from utils.errors import SearchError
from utils.files import folder_lock, write_json


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    saved, configs = prepare(tmp_path_factory.mktemp("served"))
    run = saved / "plain/20260101_000000"
    run.mkdir(parents=True)
    write_json(run / "config.json", {"name": "plain", "trainer": {"epochs": 3, "monitor": "max val_miou"}})
    train(run, {"trainer": {"epochs": 3}}, 0.0)
    (run / "pictures").mkdir()
    (run / "pictures/a.png").write_bytes(b"\x89PNG")
    return saved, configs


@pytest.fixture(scope="module")
def client(places):
    with client_of(*places) as found:
        (study,) = [each for each in found.service.catalog.entries() if each.is_study]
        for each in found.service.catalog.entries():
            found.service.catalog.refresh(each)
        found.study = f"/api/studies/{study.id}"
        yield found


def test_the_overview_has_the_numbers_of_studies_and_runs(client):
    found = client.get("/api/overview").json()
    (study,), (run,) = found["studies"], found["runs"]
    assert found["service"] == {"folder": str(client.service.folder), "jobs": 1, "can_start": True}
    assert (study["name"], study["state"], study["candidates"], study["num_samples"]) == ("sweep", "done", 6, 6)
    assert study["best"] == {"candidate": study["best"]["candidate"], "name": "val_accuracy", "value": 0.78}
    assert study["is_current"]
    assert study["folder"].startswith("sweep/")
    assert (run["state"], run["epochs"], run["max_epochs"], run["best_epoch"]) == ("done", 3, 3, 3)
    assert client.get("/api/studies").json() == {"studies": [study]}
    assert client.get("/api/runs").json() == {"runs": [run]}


def test_the_description_names_the_parameters_of_each_path_and_the_statuses_that_are_answered(client):
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for operation in methods.values():
            named = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), path
            assert "422" not in operation["responses"], path
    assert client.get("/api/studies/x/candidates?limit=none").status_code == 400


def test_a_study_has_facts_candidates_and_figures(client):
    facts = client.get(client.study).json()["facts"]
    assert facts["statuses"]["failed"] == 1
    assert facts["failures"][0]["reason"] == "val_accuracy is not a number in epoch 2 of the table"
    assert [rung["epochs"] for rung in facts["rungs"]] == [1, 2]
    assert facts["rungs"][1]["best"] == 0.78
    table = client.get(f"{client.study}/candidates", params={"limit": 2, "offset": 1}).json()
    assert (table["total"], len(table["rows"]), table["rows"][0]["rank"]) == (6, 2, 2)
    assert table["searched"] == ["optimizer.args.lr", "arch.args.width"]
    by_number = client.get(f"{client.study}/candidates?order=number").json()["rows"]
    assert [row["number"] for row in by_number] == [0, 1, 2, 3, 4, 5]
    (failed,) = client.get(f"{client.study}/candidates?status=failed").json()["rows"]
    assert failed["rank"] is None
    found = client.get(f"{client.study}/figures").json()
    assert {"curves", "rungs", "timeline"} <= set(found["figures"])
    assert [each["epochs"] for each in found["correlations"]] == [[1, 2]]
    number = table["rows"][0]["number"]
    one = client.get(f"{client.study}/candidates/{number}").json()
    assert one["candidate"] == table["rows"][0]
    assert one["reports"][0]["epoch"] == 1
    page = client.get(f"{client.study}/report")
    assert page.text.startswith("<!DOCTYPE html>")
    assert page.headers["content-security-policy"].startswith("sandbox allow-scripts")


def test_a_run_has_its_epochs_pictures_and_log(client):
    (run,) = client.get("/api/runs").json()["runs"]
    path = f"/api/runs/{run['id']}"
    found = client.get(path).json()
    assert [row["epoch"] for row in found["reports"]] == [1, 2, 3]
    assert found["result"]["best"] == {"epoch": 3, "val_miou": 0.3}
    assert found["pictures"] == ["a.png"]
    picture = client.get(f"{path}/pictures/a.png")
    assert (picture.content, picture.headers["content-type"]) == (b"\x89PNG", "image/png")
    whole = client.get(f"{path}/log?offset=0").json()
    assert whole["text"] == "Epoch 1/3 done\nEpoch 2/3 done\nEpoch 3/3 done\n"
    assert client.get(f"{path}/log?offset=-20").json()["text"] == "Epoch 3/3 done\n"
    stream = client.get(f"{path}/log/stream", headers={"Last-Event-ID": "15"})
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.text.startswith("event: log\nid: 45\ndata: ")
    assert stream.text.endswith("event: end\nid: 45\ndata: {}\n\n")


def test_commands_are_left_for_a_study(client, places):
    study = find_studies(places[0] / "sweep")[0]
    answer = client.post(f"{client.study}/add", json={"num_samples": 0})
    assert answer.status_code == 400
    before = len(waiting_commands(study))
    answer = client.post(f"{client.study}/enqueue", json={"values": ["optimizer.args.lr=0.01"]})
    assert (answer.status_code, answer.json()) == (202, {"message": "Noted. It is obeyed when the study is resumed."})
    wrong = client.post(f"{client.study}/enqueue", json={"values": ["optimizer.args.lr=7"]})
    assert wrong.status_code == 400
    assert "7 cannot be drawn" in wrong.json()["error"]["message"]
    (command,) = waiting_commands(study)[before:]
    assert command.name == "enqueue"
    idle = client.post(f"{client.study}/pause", json={})
    assert (idle.status_code, "nothing to pause" in idle.json()["error"]["message"]) == (409, True)
    ended = client.post(f"{client.study}/stop", json={"candidate": 0})
    assert (ended.status_code, "Only one that is not at its end" in ended.json()["error"]["message"]) == (409, True)


def test_a_damaged_study_is_named_and_the_others_are_shown(places, tmp_path):
    saved = tmp_path / "saved"
    shutil.copytree(places[0] / "sweep", saved / "sweep")
    study = find_studies(shutil.copytree(places[0] / "sweep", saved / "damaged"))[0]
    (study / "config.json").write_text("{")
    with client_of(saved, places[1]) as client:
        for each in client.service.catalog.entries():
            client.service.catalog.refresh(each)
        found = {each["folder"].partition("/")[0]: each for each in client.get("/api/studies").json()["studies"]}
        assert found["sweep"]["state"] == "done"
        assert found["damaged"]["state"] == "unreadable"
        assert "config.json: cannot be read" in found["damaged"]["error"]
        assert client.get(f"/api/studies/{found['damaged']['id']}").status_code == 409


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A client of a folder whose runs are damaged, each in its way, and the id of each by the name of its folder."""
    place = tmp_path_factory.mktemp("damaged")
    saved = place / "saved"
    for name in ("seed", "best", "name", "large", "table", "pipe", "folder", "whole"):
        folder = saved / name / "20260101_000000"
        folder.mkdir(parents=True)
        write_json(folder / "config.json", {"name": name, "trainer": {"epochs": 3}})
        (folder / "metrics.csv").write_text("epoch,val_miou\n1,0.5\n")
    run = "20260101_000000"
    (saved / f"seed/{run}/config.json").write_text('{"name": "seed", "seed": [1]}')
    (saved / f"best/{run}/result.json").write_text('{"best": [1, 2]}')
    (saved / f"name/{run}/config.json").write_text('{"name": "\\ud800"}')
    os.truncate(saved / f"large/{run}/metrics.csv", 5_000_001)
    (saved / f"large/{run}/pictures").mkdir()
    (saved / f"large/{run}/pictures/a.png").touch()
    os.truncate(saved / f"large/{run}/pictures/a.png", 50_000_001)
    os.mkfifo(saved / f"table/{run}/result.json")
    os.mkfifo(saved / f"pipe/{run}/info.log")
    (saved / f"folder/{run}/info.log").mkdir()
    with suppress(OSError):  # a system whose names are always UTF-8
        shutil.copytree(saved / "whole", os.fsdecode(os.fsencode(saved) + b"/\xff"))
    with client_of(saved, write_configs(place / "configs")) as client:
        entries = client.service.catalog.entries()
        for each in entries:
            client.service.catalog.refresh(each)  # the thread does the same, and would end with an error of it
        yield client, {each.folder.parent.name: each.id for each in entries}


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("seed", 200, "TypeError: int() argument"),
        ("best", 200, "AttributeError: 'list' object"),
        ("large", 409, "metrics.csv: is larger than 5,000,000 bytes"),
        ("table", 409, "result.json: is a folder, a pipe or a device"),
    ],
)
def test_a_damaged_run_is_named(damaged, name, status, error):
    client, ids = damaged
    (found,) = [each for each in client.get("/api/runs").json()["runs"] if each["id"] == ids[name]]
    assert error in found["error"]
    assert client.get(f"/api/runs/{ids[name]}").status_code == status


def test_names_that_utf_8_does_not_have_hide_no_other_run(damaged):
    client, ids = damaged
    runs = {each["id"]: each for each in client.get("/api/overview").json()["runs"]}
    assert sorted(ids) == ["best", "folder", "large", "name", "pipe", "seed", "table", "whole"]
    assert (runs[ids["whole"]]["error"], runs[ids["name"]]["name"]) == (None, "\ud800")
    assert event("runs", {"runs": [runs[ids["name"]]]}).encode()


@pytest.mark.parametrize("name", ["pipe", "folder"])
def test_a_log_that_is_no_file_is_refused(damaged, name):
    client, ids = damaged
    answer = client.get(f"/api/runs/{ids[name]}/log")
    assert (answer.status_code, "Look at the file." in answer.json()["error"]["message"]) == (409, True)


def test_files_of_any_size_take_little_memory(damaged, tmp_path):
    client, ids = damaged
    answer = client.get(f"/api/runs/{ids['large']}/pictures/a.png")
    assert (answer.status_code, "50,000,000 bytes" in answer.json()["error"]["message"]) == (409, True)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/b.webp").write_bytes(bytes(150_000))
    found = open_picture(tmp_path, "b.webp")
    assert (found.size, [len(each) for each in found.pieces()]) == (150_000, [65_536, 65_536, 18_928])
    assert found.file.closed


def test_a_config_that_is_nested_too_deep_is_refused():
    content = {}
    for _ in range(5000):
        content = {"a": content}
    with pytest.raises(SearchError, match="nested too deep"):
        finite_json(content)


def test_two_reports_are_written_at_a_time(client):
    reports = client.service._reports
    assert [reports.acquire(blocking=False) for _ in range(2)] == [True, True]
    answer = client.get(f"{client.study}/report")
    reports.release(2)
    assert (answer.status_code, "reports are written" in answer.json()["error"]["message"]) == (503, True)
    assert [client.get(f"{client.study}/report").status_code for _ in range(3)] == [200, 200, 200]


def test_the_end_of_a_log_is_found_without_a_look_at_all_folders(damaged, monkeypatch):
    client, ids = damaged
    folder = client.service.folder / "whole/20260101_000000"
    monkeypatch.setattr(client.service.catalog, "_scan", lambda: pytest.fail("all folders were looked at"))
    source = client.service.log_of_run(ids["whole"])
    with folder_lock(folder, SearchError):
        assert not source.is_over()
    assert source.is_over()
    with folder_lock(folder, SearchError):
        folder.rename(folder.with_name("removed"))
        assert source.is_over()
    folder.with_name("removed").rename(folder)


def test_summaries_outlive_a_restart_and_follow_the_journal(places, tmp_path):
    saved = tmp_path / "saved"
    shutil.copytree(places[0] / "sweep", saved / "sweep")
    with client_of(saved, places[1]) as client:
        client.service.catalog.refresh(client.service.catalog.entries()[0])
    stored = json.loads((saved / ".serve/summaries.json").read_text())["entries"]
    assert [each["summary"]["candidates"] for each in stored.values()] == [6]
    (saved / ".serve/summaries.json").write_text(json.dumps({"format": 1, "entries": stored}).replace("0.78", "0.5"))
    with client_of(saved, places[1]) as client:
        (study,) = client.get("/api/studies").json()["studies"]
        assert study["best"]["value"] == 0.5  # not read again
        (folder,) = find_studies(saved)
        config = json.loads((folder / "config.json").read_text())
        config["search"]["executor"]["args"]["workers"] = 1
        write_json(folder / "config.json", config)
        entry = client.service.catalog.entries()[0]
        assert not entry.is_current
        client.service.catalog.refresh(entry)
        assert client.get("/api/studies").json()["studies"][0]["best"]["value"] == 0.78


def test_a_journal_that_is_read_has_not_changed(client, places):
    (entry,) = [each for each in client.service.catalog.entries() if each.is_study]
    before = entry.signature
    with closing(sqlite3.connect(find_studies(places[0] / "sweep")[0] / JOURNAL)) as connection:
        connection.execute("SELECT count(*) FROM events").fetchone()
        client.service.catalog.entries()
        assert entry.signature == before


def test_events_name_only_what_changed():
    before = {"a": {"id": "a", "epochs": 1}, "b": {"id": "b"}}
    after = {"a": {"id": "a", "epochs": 2}}
    assert difference("runs", before, after) == {"runs": [{"id": "a", "epochs": 2}], "removed": ["b"]}
    assert difference("runs", before, before) is None
    assert event("log", {"text": "a\nb"}, 3) == 'event: log\nid: 3\ndata: {"text": "a\\nb"}\n\n'


def test_every_address_is_described(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/api/overview", "/api/studies/{study}/enqueue", "/api/jobs/{job}/log/stream", "/login"} <= set(paths)
    assert "202" in paths["/api/studies"]["post"]["responses"]
