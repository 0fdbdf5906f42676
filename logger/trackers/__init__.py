"""Experiment trackers: Weights & Biases and MLflow."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from utils.errors import ConfigError

if TYPE_CHECKING:
    from logger.trackers.tracker import Tracker

PACKAGES = {"wandb": "wandb", "mlflow": "mlflow-skinny"}  # key of the JSON and module name: package to install


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


def make_trackers(config: Mapping[str, Any]) -> "list[Tracker]":
    """Return a tracker for each service that `visualization` of a resolved config names."""
    from logger.trackers.mlflow_tracker import MlflowTracker
    from logger.trackers.wandb_tracker import WandbTracker

    section = config.get("visualization") or {}
    kinds = {"wandb": WandbTracker, "mlflow": MlflowTracker}
    # The keys in each section are the keyword arguments of its tracker.
    return [kind(config, **section[key]) for key, kind in kinds.items() if section.get(key) is not None]
