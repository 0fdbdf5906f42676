"""Start a project on this code: `python new_project.py ../mine`.

The new folder holds what training, testing, inference, export and search need, and from `starter/` one config, one
loader, one model and one test to change. `--update` brings a later version of the code into such a project, see
docs/new_project.md. Only Python is needed: nothing has to be installed yet.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from utils.errors import ConfigError
from utils.writing.text import in_one_line, shell_word, write_out

HERE = Path(__file__).resolve().parent
STARTER = "starter"
COPIED = (
    "LICENSE", "base", "build.py", "check.py", "config", "data_loader", "docs", "export.py", "inference.py", "logger",
    "models", "predictor", "requirements.txt", "search", "test.py", "train.py", "trainer", "utils",
)  # fmt: skip
"""The entries of this folder that belong to every project."""
LEFT_OUT = (
    ".ci", ".gitignore", "CONTRIBUTING.md", "Makefile", "README.md", "benchmarks", "data", "new_project.py",
    "notebooks", "pyproject.toml", "requirements-benchmarks.txt", "requirements-dev.txt", STARTER, "tests",
)  # fmt: skip
"""The others: tests, benchmarks, notebooks and example data, and files of which `starter/` has those of a project."""
LEFT_OUT_BELOW = ("docs/results.md", "docs/people.jpg")
RENAMED = {"gitignore": ".gitignore"}  # of starter/, where the name would take effect already
NAMED = ("README.md", "my_config.json", "pyproject.toml")  # of starter/, with the name of the project
PLACEHOLDER = "PROJECT"
TEMPLATE_BRANCH = "template"


def create_project(folder: Path) -> str:
    """Create a project in a new or empty folder and return what to do next, as text.

    Raises:
        ConfigError: The folder is not empty, is no folder, lies inside this one, or cannot be written.
    """
    if folder.resolve().is_relative_to(HERE):
        raise ConfigError(f"{folder}: is inside the template. Name a folder next to it, such as ../mine.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: exists and is not empty. Name a folder that does not exist.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        copy_template(folder)
        copy_starter(folder)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror}). Name another folder.") from error
    lines = [f"Created: {in_one_line(folder)}"]
    if shutil.which("git") is None:
        lines.append("git is not installed: later versions of the template will have to be merged by hand.")
    else:
        begin_repository(folder)
    return "\n".join([*lines, "Train and test it:", f"cd {shell_word(folder)} && make train && make test"])


def update_project(folder: Path) -> str:
    """Replace the template's files in a project, whose branch `template` is checked out, and return the next commands.

    Raises:
        ConfigError: It is no project of this template, another branch is checked out, or there are changes.
    """
    if not (folder / ".git").exists() or not (folder / "build.py").is_file():
        raise ConfigError(f"{folder}: is no git repository that new_project.py made. Name the folder of a project.")
    branch, changes = git(folder, "branch", "--show-current"), git(folder, "status", "--porcelain")
    if branch != TEMPLATE_BRANCH:
        raise ConfigError(
            f"{folder}: its branch is {branch or 'none'}, and an update goes to the branch {TEMPLATE_BRANCH}. "
            f"Run: git -C {shell_word(folder)} switch {TEMPLATE_BRANCH}"
        )
    if changes:
        raise ConfigError(f"{folder}: has changes that are not committed. Commit them first, then update again.")
    for name in git(folder, "ls-files", "-z", "--", *COPIED).split("\0"):  # ignored files, as weights, remain
        if name:
            (folder / name).unlink(missing_ok=True)
    copy_template(folder)
    here = f"git -C {shell_word(folder)}"
    steps = ("add -A", "commit -m 'Update the template'", "switch main", f"merge {TEMPLATE_BRANCH}")
    commands = " && ".join(f"{here} {step}" for step in steps)
    return f"The template's files are those of this version. Merge them:\n{commands}"


def copy_template(folder: Path) -> None:
    """Copy the entries that belong to every project, without the configs of examples."""
    for name in COPIED:
        if (HERE / name).is_dir():
            shutil.copytree(HERE / name, folder / name, ignore=left_out, dirs_exist_ok=True)
        else:
            shutil.copy2(HERE / name, folder / name)


def left_out(place: str, names: list[str]) -> set[str]:
    """Return the names in a folder that no project gets: caches, results, and folders of configs."""
    folder = Path(place)
    left = {name for name in names if name == "__pycache__" or name.endswith(".pyc")}
    left |= {name for name in names if (folder / name).relative_to(HERE).as_posix() in LEFT_OUT_BELOW}
    if folder == HERE / "config":  # folders without modules hold the configs of examples
        left |= {name for name in names if (folder / name).is_dir() and not (folder / name / "__init__.py").is_file()}
    return left


def copy_starter(folder: Path) -> None:
    """Copy the files that a project begins with, with its name in them."""
    shutil.copytree(HERE / STARTER, folder, dirs_exist_ok=True, ignore=left_out)
    for old, new in RENAMED.items():
        (folder / old).rename(folder / new)
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", folder.resolve().name).strip("_") or "project"
    for file in NAMED:
        text = (folder / file).read_text(encoding="utf-8")
        (folder / file).write_text(text.replace(PLACEHOLDER, name), encoding="utf-8")


def begin_repository(folder: Path) -> None:
    """Commit everything to the branch `main`, and let the branch `template` begin there."""
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", "--all")
    try:
        git(folder, "commit", "--quiet", "-m", "Start from the template")
    except ConfigError:  # git does not know who commits
        who = ("-c", "user.name=new_project.py", "-c", "user.email=new_project@localhost")
        git(folder, *who, "commit", "--quiet", "-m", "Start from the template")
    git(folder, "branch", TEMPLATE_BRANCH)


def git(folder: Path, *words: str) -> str:
    """Run a git command in a folder and return its output.

    Raises:
        ConfigError: It failed.
    """
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise ConfigError(f"{folder}: git {words[0]} failed ({reason}). Repair that, then run the command again.")
    return done.stdout.strip()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = argparse.ArgumentParser(description="Start a project on this code, or update its copy of the code.")
    options.add_argument("folder", type=Path, metavar="FOLDER", help="a folder that does not exist, such as ../mine")
    options.add_argument("--update", action="store_true", help="bring this version of the code into a project")
    return options


def main(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code."""
    try:
        text = update_project(arguments.folder) if arguments.update else create_project(arguments.folder)
    except ConfigError as error:
        sys.stderr.write(f"error: {in_one_line(error)}\n")
        return error.exit_code
    write_out(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
