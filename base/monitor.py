"""Which epoch is the best so far, and how long ago that was."""

import math
from typing import Any

from utils.errors import ConfigError

Row = dict[str, float]


class Monitor:
    """Follows one value of the epoch's results.

    Args:
        rule: `"max val_miou"`, `"min val_loss"`, or `"off"`.

    Raises:
        ConfigError: The rule is not of that form.
    """

    def __init__(self, rule: str) -> None:
        mode, _, name = rule.partition(" ")
        if rule != "off" and (mode not in ("min", "max") or not name.strip()):
            raise ConfigError(
                f'trainer.monitor: "{rule}" is not a rule. It is "min NAME", "max NAME" or "off". Write for example '
                '"max val_miou".'
            )
        self.mode = mode
        self.name = name.strip()
        self.best: Row | None = None
        self.stale_epochs = 0

    def check(self, known: list[str]) -> None:
        """Refuse a name that no epoch will report.

        Raises:
            ConfigError: The name is not among `known`.
        """
        if self.name and self.name not in known:
            raise ConfigError(
                f'trainer.monitor: "{self.name}" is not among the results of an epoch, which are {", ".join(known)}. '
                f'Write one of these after "{self.mode}".'
            )

    def update(self, row: Row) -> bool:
        """Note an epoch's results; whether it is the best so far (a NaN never is)."""
        if not self.name:
            return False
        if self._is_better(row[self.name]):
            self.best, self.stale_epochs = dict(row), 0
            return True
        self.stale_epochs += 1
        return False

    def _is_better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        best = self.best[self.name]
        return value < best if self.mode == "min" else value > best

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"best": self.best, "stale_epochs": self.stale_epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back a checkpoint's state."""
        self.best, self.stale_epochs = state["best"], state["stale_epochs"]
