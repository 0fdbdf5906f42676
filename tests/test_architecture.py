"""Who may import whom, that importing does nothing to the world, and how large folders and signatures may be."""

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
COMMANDS = {"build", "train", "test", "export", "base", "config", "data_loader", "logger", "models", "trainer", "utils"}
MORE = {
    **dict.fromkeys(("search/worker/", "search/__main__.py"), COMMANDS),
    **{f"data_loader/{name}/__main__.py": {"config"} for name in ("convert", "people_zoo")},
    "models/zoo/pack.py": {"config"},
}
OURS = {*ALLOWED, "build", "check", "train", "test", "inference", "export"}


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


def test_everything_is_built_in_one_place_below_the_scripts():
    scripts = {"train", "test", "inference", "export", "new_project"}
    assert not scripts & {name.partition(".")[0] for name in imported_modules(ROOT / "build.py")}
    at_import = ast.parse((ROOT / "build.py").read_text()).body
    named = {node.module.partition(".")[0] for node in at_import if isinstance(node, ast.ImportFrom)}
    assert named & OURS == {"config", "utils"}  # what needs torch is imported by the function that uses it


def code_files():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        if parts[0] not in ("tests", "benchmarks", "data", "shared", "starter") and not parts[0].startswith("."):
            yield path


def imports_while_running(tree):
    """The modules that a file imports at any time, but not those for type checkers only."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        is_for_types = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        waiting += node.orelse if is_for_types else ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_import_goes_in_a_circle_not_even_one_inside_a_function():
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in code_files()
    }
    graph = {
        name: {
            other
            for other in imports_while_running(ast.parse(path.read_text()))
            if other in files and not f"{name}.".startswith(f"{other}.")  # a package is not its modules
        }
        for name, path in files.items()
    }
    assert sum(map(len, graph.values())) > 300
    while leaves := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph, f"in a circle, or on the way to one: {sorted(graph)}"


def test_no_folder_holds_more_than_thirteen_modules():
    crowded = {
        folder: count
        for folder in {path.parent for path in code_files()}
        if (count := len(list(folder.glob("*.py")))) > 13
    }
    assert not crowded


def test_no_public_name_has_two_meanings():
    places = {}
    for path in code_files():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                places.setdefault(node.name, set()).add(str(path.relative_to(ROOT)))
    every_script_has = {"main", "parser", "load"}  # `inference.load` and `search.load` are what users write
    assert {name: files for name, files in places.items() if len(files) > 1 and name not in every_script_has} == {}


def test_no_signature_has_more_than_twelve_parameters():
    wide = []
    for path in code_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if len(names) - (names[:1] in (["self"], ["cls"])) > 12:
                    wide.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert wide == []


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
    assert folders - {"tests", "benchmarks", "starter"} == set(ALLOWED)  # the last is copied, and imported nowhere


@pytest.mark.slow
def test_importing_everything_changes_nothing(tmp_path):
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for folder in ALLOWED
        for path in modules_of(folder)
        if path.relative_to(ROOT).as_posix() not in ("data_loader/pictures.py", "search/leaderboard.py")
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
