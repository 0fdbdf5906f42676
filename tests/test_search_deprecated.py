"""Import paths that docs/search_results.md taught before they moved."""

import importlib
import sys

import pytest

from search.results.leaderboard import leaderboard, ledger
from tests.support.study_samples import sample_study

# From docs/search_results.md of version 1, as it was.
CODE = """
from pathlib import Path

from search.leaderboard import leaderboard, ledger
from search.report import write_report

write_report(study, Path("report.html"))  # study: a search.record.StudyRecord
best = leaderboard(study)[0].candidate
print(best.objectives, best.drawn, ledger(study).epochs_saved)
"""


def test_the_example_of_the_old_documentation_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("search.leaderboard", None)
    study = sample_study(30)
    with pytest.warns(DeprecationWarning, match=r"search\.leaderboard has moved: import search\.results\.leaderboard"):
        exec(CODE, {"study": study})
    best = leaderboard(study)[0].candidate
    assert capsys.readouterr().out == f"{best.objectives} {best.drawn} {ledger(study).epochs_saved}\n"
    assert (tmp_path / "report.html").stat().st_size > 50_000


def test_the_record_of_a_study_under_its_old_path():
    with pytest.warns(DeprecationWarning, match=r"search\.record has moved"):
        assert importlib.import_module("search.record").StudyRecord is type(sample_study(5))
