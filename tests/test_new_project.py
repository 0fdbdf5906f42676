"""`new_project.py` makes a project that trains, and brings later versions of the template into it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import new_project

ROOT = Path(__file__).resolve().parent.parent
GIT = {f"GIT_{who}_{what}": "x@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
# torch is imported once: command after command as `python FILE ...`, or `-m pytest ...`; `*` stands for any name.
IN_ONE_PROCESS = """
import glob, json, runpy, sys
sys.path.insert(0, "")
for words in json.loads(sys.argv[1]):
    sys.argv = words = [found for word in words for found in glob.glob(word) or [word]]
    is_file = words[0].endswith(".py")
    try:
        (runpy.run_path if is_file else runpy.run_module)(words[0], run_name="__main__")
    except SystemExit as end:
        assert not end.code, (words, end.code)
"""
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def run(*words, cwd=ROOT, code=0):
    environment = {**os.environ, **GIT, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project, and what was printed when it was made with a Python that has no packages."""
    folder = tmp_path_factory.mktemp("projects") / "my shapes"
    return folder, run(sys.executable, "-S", "new_project.py", str(folder))


def test_every_entry_of_the_repository_is_copied_or_left_out():
    if not (ROOT / ".git").exists():
        pytest.skip("needs the repository")
    tracked = {Path(name).parts[0] for name in run("git", "ls-files").splitlines()}
    assert set(new_project.COPIED) | set(new_project.LEFT_OUT) == tracked
    assert not set(new_project.COPIED) & set(new_project.LEFT_OUT)


def test_a_project_has_what_it_needs_and_not_ours(project):
    folder, text = project
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if ".git" not in path.parts}
    assert {"train.py", "search/__main__.py", "config/schema.json", "docs/data.md", ".gitignore", "LICENSE"} <= there
    assert not there & {"benchmarks", "docs/results.md", "new_project.py", "config/people", "data/people", "starter"}
    assert not [name for name in there if "__pycache__" in name]
    assert sorted(path.name for path in (folder / "tests").iterdir()) == ["test_mine.py"]
    assert json.loads((folder / "my_config.json").read_text())["name"] == "my_shapes"
    assert new_project.PLACEHOLDER not in (folder / "README.md").read_text()
    assert run("git", "status", "--porcelain", cwd=folder) == ""
    assert text.splitlines()[-1] == f"cd {shlex.quote(str(folder))} && make train && make test"


def test_its_pages_lead_to_pages_that_it_has_but_for_the_results(project):
    folder, _ = project
    pages = [folder / "README.md", *(folder / "docs").glob("*.md")]
    links = {(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)[^)]*\)", page.read_text())}
    assert len(links) > 50
    missing = {link for page, link in links if not (page.parent / link).exists()}
    # Configs of examples and benchmarks are in the template, as the README of the project says.
    assert {link for link in missing if not link.startswith(("https", "../config/", "../benchmarks/"))} == {
        "results.md"
    }


def test_it_trains_and_its_tests_pass_with_the_words_of_its_makefile(project):
    folder, _ = project
    text = run("make", "--dry-run", "train", "test", cwd=folder)
    commands = [
        line
        for line in text.splitlines()
        if line.partition(".venv/bin/python ")[2].startswith(("train", "test", "-m pytest"))
    ]
    assert [shlex.split(line)[-1] for line in commands] == ["auto", "valid", "tests"]
    train, judge, tests = (shlex.split(line.partition(".venv/bin/python ")[2]) for line in commands)
    plugins = [word for word in train if word.startswith("my_") or word == "--plugin"][1:]
    quick = [
        [*train, "--epochs", "1"],
        ["export.py", "--resume", "saved/my_shapes/*", "--format", "torch", "--output", "net.pt2", *plugins],
        [*train, "--epochs", "1", "--overfit", "3"],
        judge,
        [*tests[1:], "-p", "no:cacheprovider", "-k", "not learns"],
    ]
    text = run(sys.executable, "-c", IN_ONE_PROCESS, json.dumps(quick), cwd=folder)
    assert "triangle" in text  # the report of a classification, by the shape of its targets
    assert "16 samples: largest difference of a probability" in text  # of the exported network, on the valid data
    assert "3 passed" in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("full", "exists and is not empty"),
        ("file", "exists and is not empty"),
        ("file\nerror: \x1b[2J", r"file\nerror: \x1b[2J: exists and is not empty"),
        (ROOT / "inside", "inside the template"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(tmp_path, name, message, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("x")
    for file in ("file", "file\nerror: \x1b[2J"):
        (tmp_path / file).write_text("x")
    assert new_project.main(new_project.parser().parse_args([str(tmp_path / name)])) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "full/mine.txt").read_text() == "x"
    assert not (ROOT / "inside").exists()


def test_an_update_is_merged_with_the_changes_of_the_project(project, monkeypatch, capsys):
    folder, _ = project
    for key, value in GIT.items():
        monkeypatch.setenv(key, value)
    update = new_project.parser().parse_args([str(folder), "--update"])
    (folder / "my_model.py").write_text("# mine\n")
    (folder / "utils/errors.py").write_text(f"# mine\n{(folder / 'utils/errors.py').read_text()}")
    run("git", "commit", "-qam", "Change a file of mine and one of the template", cwd=folder)
    assert new_project.main(update) == 2
    assert "its branch is main" in capsys.readouterr().err
    run("git", "switch", "-q", "template", cwd=folder)
    (folder / "check.py").unlink()  # as if the template had been another before
    (folder / "gone.txt").write_text("mine")
    assert new_project.main(update) == 2
    assert "not committed" in capsys.readouterr().err
    run("git", "add", "-A", cwd=folder)
    run("git", "commit", "-qm", "An older template", cwd=folder)
    (folder / "models/mine.pth").write_text("weights that git ignores")
    assert new_project.main(update) == 0
    assert (folder / "models/mine.pth").exists()
    command = capsys.readouterr().out.splitlines()[-1]
    run("bash", "-c", command, cwd=folder)
    assert (folder / "check.py").read_text() == (ROOT / "check.py").read_text()
    assert (folder / "utils/errors.py").read_text().startswith("# mine")
    assert (folder / "my_model.py").read_text() == "# mine\n"
