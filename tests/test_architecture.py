"""Who may import whom, and that importing does nothing to the world."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "utils": set(),
    "base": {"utils"},
    "config": {"utils"},
    "models": {"base", "utils"},
    "data_loader": {"base", "utils"},
    "logger": {"base", "utils"},
    "predictor": {"base", "utils"},
    "trainer": {"base", "utils"},
    "search": {"config", "utils"},
}
# A worker of the search runs what the commands run; the search itself is only given its name.
COMMANDS = {"build", "train", "test", "base", "config", "data_loader", "logger", "models", "trainer", "utils"}
MORE = {"search/worker/": COMMANDS, "search/__main__.py": COMMANDS}
OURS = {*ALLOWED, "build", "train", "test", "inference", "export"}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def modules_of(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, f"{folder} holds no module"
    return files


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_folders_import_only_what_they_may(folder):
    for path in modules_of(folder):
        ours = {name.partition(".")[0] for name in imported_modules(path)} & OURS
        more = [names for start, names in MORE.items() if str(path.relative_to(ROOT)).startswith(start)]
        allowed = ALLOWED[folder].union(*more)
        assert ours <= allowed | {folder}, f"{path.relative_to(ROOT)} imports {ours}"


@pytest.mark.parametrize("script", ["inference.py", "export.py"])
def test_using_a_network_does_not_import_the_trainer(script):
    assert not {"trainer", "train"} & {name.partition(".")[0] for name in imported_modules(ROOT / script)}


@pytest.mark.parametrize("folder", ["config", "search"])
def test_some_folders_know_no_torch(folder):
    for path in modules_of(folder):
        if str(path.relative_to(ROOT)).startswith("search/worker/"):
            continue
        assert "torch" not in {name.partition(".")[0] for name in imported_modules(path)}, path


def test_a_search_itself_loads_no_torch(tmp_path):
    files = [path.relative_to(ROOT) for path in (ROOT / "search").rglob("*.py") if not path.stem.startswith("__")]
    modules = [
        ".".join(path.with_suffix("").parts) for path in files if path.parts[1] not in ("worker", "leaderboard.py")
    ]
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfor name in {modules!r}: __import__(name)\n"
    program += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_folder_of_code_is_under_the_rule():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders - {"tests", "benchmarks"} == set(ALLOWED)


def test_importing_everything_changes_nothing(tmp_path):
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for folder in ALLOWED
        for path in modules_of(folder)
        if path.stem not in ("pictures", "leaderboard")
    ]
    assert len(modules) > 40
    program = f"""
import sys, random, logging, os
sys.path.insert(0, {str(ROOT)!r})
import numpy, torch
def world():
    chance = random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist()
    return chance, list(logging.getLogger().handlers), torch.get_num_threads()
before = world()
for name in {modules!r}:
    __import__(name)
assert before == world()
assert not os.listdir(".")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", ["train.py", "test.py", "inference.py", "export.py"])
def test_help_loads_nothing_heavy(script):
    program = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
sys.argv = [{script!r}, "--help"]
try:
    runpy.run_path({str(ROOT / script)!r}, run_name="__main__")
except SystemExit as end:
    assert end.code == 0, end.code
assert not {{"torch", "cv2", "albumentations"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
