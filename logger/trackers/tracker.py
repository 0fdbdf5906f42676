"""Base class of the experiment trackers, and the choice of those that a config names."""

from abc import abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from base.callback import Callback
from utils.errors import ConfigError

if TYPE_CHECKING:
    from base.base_trainer import BaseTrainer


PACKAGES = {"wandb": "wandb", "mlflow": "mlflow-skinny"}  # key of the JSON and module name: package to install


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


def require_packages(config: Mapping[str, Any]) -> None:
    """Raise an error if `visualization` of a config names a service whose package is not installed.

    Raises:
        ConfigError: With the command that installs it.
    """
    section = config.get("visualization") or {}
    for key, package in PACKAGES.items():
        if section.get(key) is not None and find_spec(key) is None:
            raise ConfigError(
                f"visualization.{key}: the package {key} is not installed. Install it (pip install {package}), or "
                f"remove visualization.{key}."
            )


def make_trackers(config: Mapping[str, Any]) -> list[Tracker]:
    """Return a tracker for each service that `visualization` of a resolved config names."""
    from logger.trackers.mlflow_tracker import MlflowTracker
    from logger.trackers.wandb_tracker import WandbTracker

    section = config.get("visualization") or {}
    kinds = {"wandb": WandbTracker, "mlflow": MlflowTracker}
    # The keys in each section are the keyword arguments of its tracker.
    return [kind(config, **section[key]) for key, kind in kinds.items() if section.get(key) is not None]
