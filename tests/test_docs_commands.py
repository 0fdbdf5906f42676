"""Every command that README and docs/ show is one that its parser understands."""

import argparse
import re
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import export
import inference
import new_project
import test as testing
import train
from data_loader.convert import __main__ as convert
from data_loader.people_zoo import __main__ as people_zoo
from models.zoo import pack
from search.__main__ import search_parser
from search.cli.compare import COMPARE, compare_parser
from search.cli.control import CONTROLS, control_parser
from search.cli.study_commands import COMMANDS, command_parser
from search.joining.command import join_parser
from search.serve.command import SERVE, serve_parser

ROOT = Path(__file__).resolve().parent.parent
PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "train.py": train.parser, "test.py": testing.parser, "inference.py": inference.parser, "export.py": export.parser,
    "new_project.py": new_project.parser, "data_loader.convert": convert.parser,
    "data_loader.people_zoo": people_zoo.parser, "models.zoo.pack": pack.parser, "search": search_parser,
    f"search {SERVE}": serve_parser, f"search {COMPARE}": compare_parser, "search join": join_parser,
    **{f"search {name}": partial(control_parser, name) for name in CONTROLS},
    **{f"search {name}": partial(command_parser, name) for name in COMMANDS},
}  # fmt: skip
_COMMAND = re.compile(r"(?<!of )\bpython (?:-m )?((?:\w+/)*\w+\.py|(?:search|data_loader|models)[\w.]*)(?=\s|$)(.*)")
_AFTER_IT = re.compile(r"\s{3,}|\s#|>|&&|;|\s\|\s")  # what it does, or another command


def shown_commands() -> list[tuple[str, str, list[str]]]:
    """(page, program, words) of each command in a fenced block; a subcommand of a search belongs to the program."""
    found = []
    for path in (*map(ROOT.joinpath, ("README.md", "CONTRIBUTING.md", "starter/README.md")), *ROOT.glob("docs/*.md")):
        for language, text in re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S):
            for program, rest in _COMMAND.findall(re.sub(r"\\\n\s*", "", text)) if language in ("", "bash") else ():
                words = shlex.split(_AFTER_IT.split(rest.strip())[0])
                words = [word for word in words if not re.fullmatch(r"\[\w+\]", word)]  # as one may leave it out
                subcommand = f"{program} {words[0]}" if words else ""
                is_known = subcommand in PARSERS
                found.append((path.name, subcommand if is_known else program, words[1:] if is_known else words))
    return found


SHOWN = shown_commands()


def test_commands_are_found() -> None:
    assert sum(page == "README.md" for page, *_ in SHOWN) > 15
    assert {program for _, program, _ in SHOWN} >= set(PARSERS) - {"models.zoo.pack"}


@pytest.mark.parametrize(("page", "program", "words"), SHOWN)
def test_a_shown_command_is_understood(page: str, program: str, words: list[str]) -> None:
    if program not in PARSERS:  # a file of the page, or of benchmarks/
        assert (ROOT / program).is_file() or program in _files_shown(), page
        return
    parsed = PARSERS[program]().parse_intermixed_args(words)
    assert all("=" in override for override in getattr(parsed, "overrides", []))


def _files_shown() -> set[str]:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    return set(re.findall(r"^\*\*`([\w.]+)`\*\*$", pages, re.M))
