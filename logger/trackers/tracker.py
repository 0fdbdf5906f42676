"""What services that keep the curves of many runs have in common, and which of them a run writes to."""

from abc import abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from base.callback import Callback
from utils.errors import ConfigError

if TYPE_CHECKING:
    from base.base_trainer import BaseTrainer


PACKAGES = {"wandb": "wandb", "mlflow": "mlflow-skinny"}


class Tracker(Callback):
    """Hands every epoch's row to a service, and goes on with the same entry there after a resume.

    An epoch that a killed run had handed over before its checkpoint was written comes a second time, with the same
    values: a subclass leaves it out.

    Args:
        config: The resolved config, kept with the entry.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.run_id: str | None = None
        self._folder_name: str | None = None
        self._is_open = False

    @abstractmethod
    def open(self, trainer: "BaseTrainer", run_id: str | None) -> str:
        """Begin an entry, or go on with the one of `run_id`; its id.

        Raises:
            ConfigError: The service cannot be used.
        """

    @abstractmethod
    def write(self, row: Mapping[str, float]) -> None:
        """Hand over an epoch's row of the history."""

    @abstractmethod
    def close(self) -> None:
        """End the entry."""

    def on_fit_start(self, trainer: "BaseTrainer") -> None:
        """Begin an entry with what the history holds, or go on with the one of this run folder."""
        if not trainer.is_main_process or trainer.run_folder is None:
            return
        name = trainer.run_folder.name
        known = self.run_id if self._folder_name == name else None
        self.run_id, self._folder_name = self.open(trainer, known), name
        self._is_open = True
        if known is None:
            for row in trainer.history:
                self.write(row)

    def on_epoch_end(self, trainer: "BaseTrainer", metrics: dict[str, float]) -> None:
        """Hand over the epoch."""
        if self._is_open:
            self.write(metrics)

    def on_close(self, trainer: "BaseTrainer") -> None:
        """End the entry."""
        if self._is_open:
            self._is_open = False
            self.close()

    def state_dict(self) -> dict[str, Any]:
        """The entry, and the run folder that it belongs to: a run that begins elsewhere gets its own."""
        return {} if self.run_id is None else {"run_id": self.run_id, "folder": self._folder_name}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the entry."""
        self.run_id, self._folder_name = state["run_id"], state["folder"]


def require_packages(config: Mapping[str, Any]) -> None:
    """Refuse a config that names a service whose package is not there.

    Raises:
        ConfigError: With the command that installs it.
    """
    for key, package in PACKAGES.items():
        if _section(config).get(key) is not None and find_spec(key) is None:
            raise ConfigError(
                f"visualization.{key}: the package {key} is not installed. Install it (pip install {package}), or "
                f"remove visualization.{key}."
            )


def make_trackers(config: Mapping[str, Any]) -> list[Tracker]:
    """The services that `visualization` of a resolved config names."""
    from logger.trackers.mlflow_tracker import MlflowTracker
    from logger.trackers.wandb_tracker import WandbTracker

    kinds = {"wandb": WandbTracker, "mlflow": MlflowTracker}
    section = _section(config)
    return [kind(config, **section[key]) for key, kind in kinds.items() if section.get(key) is not None]


def _section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    section: Mapping[str, Any] = config.get("visualization") or {}
    return section
