"""Weights & Biases: the curves of a run on its server or, offline, in the run's folder."""

import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from logger.trackers.tracker import Tracker
from utils.errors import ConfigError

if TYPE_CHECKING:
    from base.base_trainer import BaseTrainer


Mode = Literal["online", "offline", "disabled"]
PATIENCE = 300.0  # seconds; on a busy machine its own process takes longer to start than the 30 that it grants itself


class WandbTracker(Tracker):
    """Writes to Weights & Biases.

    Args:
        config: The resolved config.
        project: Project of the run; the experiment's name where not given.
        entity: User or team; the account's own where not given.
        mode: "offline" keeps everything in the run's folder, for `wandb sync`; "disabled" writes nothing.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        project: str | None = None,
        entity: str | None = None,
        mode: Mode = "online",
    ) -> None:
        super().__init__(config)
        self.project = project or str(config["name"])
        self.entity = entity
        self.mode: Mode = mode
        self._run: Any = None

    def open(self, trainer: "BaseTrainer", run_id: str | None) -> str:
        """Begin a run, or go on with one."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        folder = Path(str(trainer.run_folder))
        chosen = run_id or _id_of(folder)
        try:
            self._run = wandb.init(
                project=self.project,
                entity=self.entity,
                mode=self.mode,
                id=chosen,
                name=folder.name,
                dir=str(folder),
                resume="allow" if self.mode == "online" else None,
                config=dict(self.config),
                settings=wandb.Settings(console="off", silent=True, init_timeout=PATIENCE, x_service_wait=PATIENCE),
            )
        except (wandb.Error, OSError) as error:
            raise ConfigError(
                f"visualization.wandb: Weights & Biases did not start ({str(error).splitlines()[0]}). Online it needs "
                'the network and an account (wandb login). Set visualization.wandb.mode to "offline", or remove it.'
            ) from error
        return chosen

    def write(self, row: Mapping[str, float]) -> None:
        """Hand over an epoch; a step that the server has already is left out there."""
        self._run.log(dict(row), step=int(row.get("step", row["epoch"])))

    def close(self) -> None:
        """Until everything is written."""
        self._run.finish()


def _id_of(folder: Path) -> str:
    """An id that follows from where the run lies, so that no generator is drawn from."""
    place = f"{platform.node()}:{folder.resolve()}"
    return hashlib.sha256(place.encode()).hexdigest()[:16]
