"""Base class of the experiment trackers, and the choice of those that a config names."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from base.callback import Callback

if TYPE_CHECKING:
    from base.base_trainer import BaseTrainer


class Tracker(Callback):
    """Callback that sends every epoch's row to a service; a resumed run continues its entry there.

    A killed run may have sent an epoch before its checkpoint was written. The resumed run sends it again with the same
    values, and a subclass leaves it out.

    Args:
        config: The resolved config, stored with the entry.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.run_id: str | None = None
        self._folder_name: str | None = None
        self._is_open = False

    @abstractmethod
    def open(self, trainer: "BaseTrainer", run_id: str | None) -> str:
        """Create an entry, or reopen the one of `run_id`, and return its id.

        Raises:
            ConfigError: The service cannot be used.
        """

    @abstractmethod
    def write(self, row: Mapping[str, float]) -> None:
        """Send an epoch's row of the history."""

    @abstractmethod
    def close(self) -> None:
        """Close the entry."""

    def on_fit_start(self, trainer: "BaseTrainer") -> None:
        """Create an entry and send the history so far, or reopen the entry of this run folder."""
        if not trainer.is_main_process or trainer.run_folder is None:
            return
        name = trainer.run_folder.name
        known = self.run_id if self._folder_name == name else None
        self.run_id, self._folder_name = self.open(trainer, known), name
        self._is_open = True
        if known is None:  # a run that resumes in another folder writes the epochs before it, too
            for row in trainer.history:
                self.write(row)

    def on_epoch_end(self, trainer: "BaseTrainer", metrics: dict[str, float]) -> None:
        """Send the epoch."""
        if self._is_open:
            self.write(metrics)

    def on_close(self, trainer: "BaseTrainer") -> None:
        """Close the entry, also after an error."""
        if self._is_open:
            self._is_open = False
            self.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the entry's id and its run folder: in another folder a run gets a new entry."""
        return {} if self.run_id is None else {"run_id": self.run_id, "folder": self._folder_name}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self.run_id, self._folder_name = state["run_id"], state["folder"]
