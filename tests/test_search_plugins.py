"""Samplers, schedulers, strategies and executors of the user's own, named in the file like any other class."""

import pytest

import search
from search.__main__ import main
from search.study.journal import JOURNAL, read_events
from tests.test_search_control import LR, space_file

PLUGIN = '''
from search.executors.serial import Serial
from search.samplers.base import Sampler
from search.schedulers.halving import RandomSearch
from search.strategies.multi_fidelity import MultiFidelity


class Middle(Sampler):
    """Proposes the middle of every range, then random draws."""

    def __init__(self, space, shift: float = 0.0):
        super().__init__(space)
        self.shift = shift

    def suggest(self, number, observations, running, rng):
        if number:
            return self.space.random(number)
        return self.space.at(lambda path, branch, marker: 0.5 + self.shift)


class OneMore(RandomSearch):
    """Random search with one candidate more."""

    def __init__(self, num_samples, max_epochs, more: int = 1):
        super().__init__(num_samples + more, max_epochs)


class Polite(MultiFidelity):
    """The usual search, which adds a section to the report."""

    def __init__(self, parts, greeting: str = "hello"):
        super().__init__(parts, stage="polite")
        self.greeting = greeting

    def sections(self):
        return [{"title": "Greeting", "text": self.greeting}]


class Here(Serial):
    """The serial executor under another name."""
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugins") / "own_search_parts.py"
    path.write_text(PLUGIN)
    return str(path)


def own(name, **args):
    return {"type": f"own_search_parts.{name}", "args": args}


def test_all_four_are_named_in_the_file(tmp_path, plugin, capsys):
    file = space_file(
        tmp_path,
        num_samples=1,
        sampler=own("Middle", shift=0.1),
        scheduler=own("OneMore"),
        strategy=own("Polite", greeting="good day"),
        executor=own("Here"),
    )
    assert main(["-c", str(file), "--plugin", plugin]) == 0
    said = capsys.readouterr().out
    assert f"--plugin {plugin}" in said
    (study,) = (tmp_path / "tiny").iterdir()
    result = search.load(study, plugins=[plugin])
    assert len(result.candidates) == 2
    assert result.candidates[0][LR] == pytest.approx(0.001 * 10**0.6, rel=1e-5)
    assert result.record.sections == [{"title": "Greeting", "text": "good day"}]
    assert {event.stage for event in read_events(study / JOURNAL)} == {"study", "polite"}
    assert main(["report", str(study), "--plugin", plugin]) == 0
    assert "good day" in (study / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": own("Middle", shift="far")}, "search.sampler.args.shift"),
        ({"sampler": own("Middle", shfit=1.0)}, "did you mean"),
        ({"sampler": own("OneMore")}, "search.sampler"),
        ({"strategy": own("Here")}, "search.strategy"),
        ({"scheduler": own("OneMore", more=1.5)}, "search.scheduler.args.more"),
        ({"executor": "own_search_parts.Nowhere"}, "search.executor"),
    ],
)
def test_their_arguments_are_checked(tmp_path, plugin, capsys, options, message):
    file = space_file(tmp_path, **options)
    assert main(["-c", str(file), "--plugin", plugin, "--check"]) == 2
    error = capsys.readouterr().err
    assert message.lower() in error.lower()
    assert "Traceback" not in error


def test_an_error_of_a_scheduler_is_one_line_and_loses_nothing(tmp_path, capsys):
    path = tmp_path / "own_faulty_scheduler.py"
    path.write_text(
        "from search.schedulers.halving import RandomSearch\n\n\n"
        "class Faulty(RandomSearch):\n"
        '    """Divides by zero at the second report."""\n\n'
        "    def report(self, candidate, epoch, values):\n"
        "        return super().report(candidate, epoch, values) if candidate == 0 else 1 / 0\n"
    )
    file = space_file(tmp_path, scheduler={"type": "own_faulty_scheduler.Faulty"})
    assert main(["-c", str(file), "--plugin", str(path)]) == 5
    error = capsys.readouterr().err
    assert "ZeroDivisionError at own_faulty_scheduler.py:8" in error
    assert "Traceback" not in error
    (study,) = (tmp_path / "tiny").iterdir()
    reports = [event.candidate for event in read_events(study / JOURNAL) if event.kind == "report"]
    assert reports == [0]
