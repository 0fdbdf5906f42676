"""The pages of docs/, the files and commands that they show, and a workplace in which to try them."""

import json
import re
import sys
from pathlib import Path

import pytest

from config import load_config

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
FILES = dict(re.findall(r"^\*\*`([\w.]+)`\*\*\n```\w+\n(.*?)^```", "".join(PAGES.values()), re.M | re.S))
PLUGINS = sorted(Path(name).stem for name in FILES if name.endswith(".json"))


def blocks(language):
    """(page, text) of every fenced block in a language."""
    return [
        (page, text)
        for page, content in PAGES.items()
        for text in re.findall(rf"^```{language}\n(.*?)^```", content, re.M | re.S)
    ]


def tiny(config):
    """The same run in a second: small images, few of them, a narrow network."""
    config["arch"]["args"] = {"channels": [4, 8]}
    for name in ("train_loader", "valid_loader", "test_loader"):
        config[name]["args"] |= {"resize": [32, 24], "batch_size": 4, "samples": 8, "n_workers": 0}
    config["trainer"] |= {"epochs": 2, "len_epoch": 3, "tensorboard": False}
    return config


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder as the reader has it: data/, config/ with a quick start that is over at once, and the files shown."""
    loaded = set(sys.modules)
    monkeypatch.setattr("utils.plugins.loaded", {})
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    quickstart = tmp_path / "config/people/quickstart.json"
    quickstart.parent.mkdir(parents=True)
    quickstart.write_text(json.dumps(tiny(load_config(ROOT / "config/people/quickstart.json"))))
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    yield tmp_path
    for name in {Path(file).stem for file in FILES} - loaded:
        sys.modules.pop(name, None)
