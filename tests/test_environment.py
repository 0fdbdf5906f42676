"""What environment.json says."""

import json
import platform
import subprocess

import torch

from utils import environment


def test_environment_is_plain_data_about_this_machine():
    captured = environment.capture()
    assert json.loads(json.dumps(captured)) == captured
    assert captured["python"] == platform.python_version()
    assert torch.__version__.startswith(captured["packages"]["torch"])
    assert captured["cpu"]["available"] >= 1
    assert captured["command"]


def test_environment_names_no_machine():
    if len(platform.node()) > 3:
        assert platform.node() not in json.dumps({**environment.capture(), "command": []})


def test_commit_and_changes_are_told(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    clean = environment.git_state(tmp_path)
    (tmp_path / "file").write_text("two")
    assert len(clean["commit"]) == 40
    assert not clean["is_dirty"]
    environment.git_state.cache_clear()  # it is read once per process
    assert environment.git_state(tmp_path) == {"commit": clean["commit"], "is_dirty": True}


def test_no_repository_and_no_git_are_tolerated(tmp_path, monkeypatch):
    assert environment.git_state(tmp_path / "nowhere") is None
    monkeypatch.setenv("PATH", "")
    environment.git_state.cache_clear()
    assert environment.git_state(environment.REPOSITORY) is None
