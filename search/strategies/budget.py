"""The budget of a study, and how much of it is spent."""

import time
from dataclasses import dataclass

from config.checking.sections import Budget
from search.study.state import StudyState


@dataclass
class BudgetUse:
    """What a study has spent of its budget.

    Attributes:
        budget: The budget.
        state: The state of the study.
        seconds: That the study had taken at the last sign of life of a worker.
    """

    budget: Budget
    state: StudyState
    seconds: float = 0.0

    def note_sign_of_life(self) -> None:
        """Count the time until now: a sign of life is no event, from which the state has its time."""
        self.seconds = self.state.seconds_until(time.time())

    @property
    def spent(self) -> str:
        """The part that is used up, in words; empty if none is."""
        epochs, minutes = self.budget.epochs, self.budget.max_time
        if epochs is not None and self.state.epochs >= epochs:
            return f"{epochs} epochs are spent"
        if minutes is not None and max(self.seconds, self.state.seconds) >= 60 * minutes:
            return f"{minutes:g} minutes are over"
        return ""
