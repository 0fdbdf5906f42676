"""What environment.json says."""

import json
import platform
import subprocess

import pytest
import torch

from utils import environment
from utils.environment import known_memory

GIGABYTE = 2**30


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


@pytest.mark.parametrize(
    ("limit", "files", "expected"),
    [
        ("max", 1, 8 * GIGABYTE),
        (f"{4 * GIGABYTE}", 1, (4 - 3 + 2 * 1) * GIGABYTE),  # the pages of files that were read are given up
        (f"{4 * GIGABYTE}", 0, (4 - 3) * GIGABYTE),
        (f"{2 * GIGABYTE}", 0, 0),
        (f"{64 * GIGABYTE}", 0, 8 * GIGABYTE),
    ],
)
def test_free_memory_is_that_of_the_container(tmp_path, limit, files, expected):
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {8 * 2**20} kB\n")
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{3 * GIGABYTE}\n")
    pages = files * GIGABYTE
    (group / "memory.stat").write_text(f"anon 7\nactive_file {pages}\ninactive_file {pages}\nshmem 5\n")
    assert known_memory(tmp_path) == expected


def test_a_system_that_does_not_say_how_much_memory_is_free(tmp_path):
    assert known_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemAvailable: 5 kB\n")
    assert known_memory(tmp_path) == 5 * 1024
