"""The `search` section: its keys. What they lead to is made in `search.settings`."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from config.faults import Faults, join_path
from config.sections import MAX_SEED, Strict, check_section

SCHEDULER_VALUES = ("num_samples", "max_epochs")
"""What a scheduler is told by the search, not by its `args`."""


class CandidateLimits(Strict):
    """What a candidate may cost; judged before it is trained."""

    max_params: int | None = Field(None, ge=1, description="Weights of the network.")
    max_flops: int | None = Field(None, ge=1, description="FLOPs of one forward pass.")
    max_memory_mb: float | None = Field(None, gt=0, description="Predicted memory of training, in megabytes.")
    max_latency_ms: float | None = Field(None, gt=0, description="Measured time of one forward pass, in milliseconds.")
    input_size: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, min_length=1, max_length=2, description="[height, width] at which FLOPs and latency are stated."
    )


class Budget(Strict):
    """What a search may cost."""

    epochs: int | None = Field(None, ge=1, description="Epochs in all; null: as the scheduler wants.")
    max_time: float | None = Field(None, gt=0, description="Minutes in all, earlier sessions included.")
    disk_mb: int | None = Field(None, ge=1, description="Megabytes that checkpoints may take before some are deleted.")


class RetrainOptions(Strict):
    """What becomes of the best."""

    top: int = Field(1, ge=0, description="Candidates that are trained again from the beginning.")
    epochs: int | None = Field(None, ge=1, description="Epochs of each; null: trainer.epochs.")
    seeds: int = Field(1, ge=1, description="Trainings of each.")


class SearchOptions(Strict):
    """How a search draws and judges candidates."""

    num_samples: int = Field(1, ge=1, description="Candidates to train.")
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Of the draws; null: the seed of the config.")
    scheduler: Any = Field(None, description="Who trains for how long; null: RandomSearch.")
    objectives: list[str] | None = Field(
        None, min_length=1, description='E.g. ["max val_miou", "min params"]; null: trainer.monitor.'
    )
    limits: dict[str, Any] | None = Field(None, description="max_params, max_flops, max_memory_mb, max_latency_ms.")
    budget: dict[str, Any] = Field({}, description="epochs, max_time, disk_mb.")
    executor: Any = Field("serial", description="What trains: serial, processes or ray.")
    max_epoch_time: float | None = Field(None, gt=0, description="Seconds after which a silent worker is given up.")
    retrain: dict[str, Any] | None = Field(None, description="top, epochs, seeds; null: the winner stays as it is.")


SEARCH_PARTS: dict[str, type[Strict]] = {"limits": CandidateLimits, "budget": Budget, "retrain": RetrainOptions}
SEARCH_CLASSES = ("scheduler", "executor")


def check_search(section: Any, faults: Faults) -> SearchOptions | None:
    """Check the search section and its parts; the classes that it names are checked against the catalogue."""
    options = check_section(SearchOptions, section, "search", faults)
    for name, model in SEARCH_PARTS.items():
        part = section.get(name) if isinstance(section, Mapping) else None
        if isinstance(part, Mapping):
            check_section(model, part, join_path("search", name), faults)
    return options
