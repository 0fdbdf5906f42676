"""Processes of one run of which one fails: the others end, too, with its reason."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.runtime.devices import joined_world
from utils.errors import DataError, TrainingError


@pytest.fixture(scope="module")
def outcomes():
    """Exit codes and errors of two processes, by case."""
    command = [sys.executable, "-m", "tests.support.failing_processes"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True, timeout=300
    )
    return json.loads(done.stdout)


@pytest.mark.xdist_group("process failures")
def test_a_collective_call_ends_with_the_reason_of_the_process_that_failed(outcomes):
    outcome = outcomes["one fails, one waits for it"]
    assert outcome["codes"] == [TrainingError.exit_code, DataError.exit_code]
    assert outcome["errors"] == [
        "TrainingError: Process 1 has ended with an error, and the others end with it: photo 7 is damaged.",
        "DataError: photo 7 is damaged.",
    ]


@pytest.mark.xdist_group("process failures")
def test_a_process_that_answers_to_nothing_is_ended(outcomes):
    outcome = outcomes["one fails, one answers to nothing"]
    assert outcome["codes"] == [DataError.exit_code, DataError.exit_code]
    assert outcome["errors"][0] == ""


@pytest.mark.xdist_group("process failures")
@pytest.mark.parametrize(("case", "code"), [("both end", 0), ("both are stopped", 143)])
def test_processes_that_end_together_end_by_themselves(outcomes, case, code):
    assert outcomes[case]["codes"] == [code, code]


def test_processes_that_do_not_find_each_other_are_an_error(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    message = r"do not find each other .* Start them with torchrun, or unset both"
    with pytest.raises(TrainingError, match=message), joined_world():
        pass
