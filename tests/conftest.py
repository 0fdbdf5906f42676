"""Tests of a file run in one process; the end says what the conformance suites covered; signals as in a terminal."""

import signal
from collections.abc import Iterator

import pytest

COVERED = "covered"
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored if the tests were started with nohup


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file together with `--dist loadgroup`, so that what they share is made once."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line per suite that recorded `covered`, from wherever it ran."""
    words = sorted(_covered(terminalreporter))
    if words:
        terminalreporter.section("conformance")
    for line in words:
        terminalreporter.write_line(line)


def _covered(terminalreporter: pytest.TerminalReporter) -> Iterator[str]:
    for report in terminalreporter.stats.get("passed", []):
        yield from (str(value) for name, value in getattr(report, "user_properties", ()) if name == COVERED)
