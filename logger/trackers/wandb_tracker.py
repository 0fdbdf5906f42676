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
TIMEOUT = 300.0  # seconds; on a busy machine the process of wandb takes longer to start than its default of 30


class WandbTracker(Tracker):
    """Tracker that writes to Weights & Biases.

    Args:
        config: The resolved config.
        project: Project of the run; by default the name of the config.
        entity: User or team; by default that of the account.
        mode: "offline" stores everything in the run's folder, for `wandb sync`; "disabled" writes nothing.
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
        """Create a run, or reopen one, and return its id.

        Raises:
            ConfigError: The server cannot be reached, or the account or a name is refused.
        """
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        folder = Path(str(trainer.run_folder))
        # A new id follows from the place of the run: drawing one would change the state of a random generator.
        place = f"{platform.node()}:{folder.resolve()}"
        chosen = run_id or hashlib.sha256(place.encode()).hexdigest()[:16]
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
                settings=wandb.Settings(console="off", silent=True, init_timeout=TIMEOUT, x_service_wait=TIMEOUT),
            )
        except (wandb.Error, OSError) as error:
            raise ConfigError(
                f"visualization.wandb: Weights & Biases did not start ({str(error).splitlines()[0]}). Online it needs "
                'the network and an account (wandb login). Set visualization.wandb.mode to "offline", or remove it.'
            ) from error
        return chosen

    def write(self, row: Mapping[str, float]) -> None:
        """Send an epoch's row of the history; wandb leaves out a step that the run has already."""
        self._run.log(dict(row), step=int(row.get("step", row["epoch"])))

    def close(self) -> None:
        """Close the run once everything is written."""
        self._run.finish()
