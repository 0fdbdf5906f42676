"""The API of the service: studies, runs, candidates, outputs, commands."""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest

from search.serve.streams import difference, event
from search.study.commands import waiting_commands
from search.study.folders import find_studies
from search.study.journal import JOURNAL
from tests.support.served import client_of, prepare
from tests.support.served_job import train
from utils.files import write_json


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
