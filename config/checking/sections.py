"""The sections with fixed keys: the top level and `trainer`. Everything else names a class and its arguments."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config.checking.signatures import field_annotation, wrong_value
from config.faults import Faults, closest, join_path, show, unknown_name

LOADER_SECTIONS = ("data_loader", "train_loader", "valid_loader", "test_loader")
MAX_SEED = 2**63 - 1

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A section of which every key and type is known."""

    model_config = ConfigDict(strict=True, extra="forbid")


class TrainerOptions(Strict):
    """How long to train, what to keep, what to watch."""

    type: str = Field("Trainer", description="Class of the loop; a subclass of BaseTrainer.")
    args: dict[str, Any] = Field({}, description="Arguments of a trainer class of your own.")
    epochs: int = Field(..., ge=1, description="Passes over the training data.")
    len_epoch: int | None = Field(None, ge=1, description="Steps per epoch; null: one pass over the loader.")
    save_dir: str = Field("saved/", min_length=1, description="Folder that the run's folder is made in.")
    save_period: int | None = Field(None, ge=1, description="Keep a checkpoint of every N-th epoch.")
    save_every_steps: int | None = Field(None, ge=1, description="Renew checkpoint-last.pth every N steps.")
    save_every_minutes: float | None = Field(None, gt=0, description="Renew checkpoint-last.pth every N minutes.")
    monitor: str = Field("off", description='What makes a model the best: "max val_miou", "min val_loss" or "off".')
    early_stop: int | None = Field(None, ge=1, description="Stop after N epochs in which the monitor did not improve.")
    verbosity: int = Field(2, ge=0, le=2, description="0: warnings, 1: information, 2: details.")
    tensorboard: bool = Field(True, description="Write TensorBoard events into the run's folder.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the device has it."
    )
    channels_last: bool = Field(True, description="Memory layout of images and convolutions.")
    accumulate: int = Field(1, ge=1, description="Batches whose gradients make one step of the optimizer.")
    clip_norm: float | None = Field(None, gt=0, description="Largest L2 norm of the gradients of a step.")
    clip_value: float | None = Field(None, gt=0, description="Largest absolute value of each number of a gradient.")
    ema: float | None = Field(
        None, gt=0, lt=1, description="Decay of an average of the weights, which is then judged and used, e.g. 0.999."
    )
    freeze: list[str] = Field([], description='Parts that do not learn, e.g. ["encoder", "*.bias"].')
    unfreeze_epoch: int | None = Field(None, ge=2, description="Epoch from which all parts learn.")
    sync_batch_norm: bool = Field(False, description="Norm statistics over all processes; on GPUs under torchrun.")
    compile: bool = Field(False, description="Compile the network with torch.compile.")
    checkpoint_activations: list[str] = Field(
        [], description="Parts computed again in the backward pass to save memory."
    )
    max_time: float | None = Field(None, gt=0, description="Save and end after so many minutes of this process.")
    histograms: bool = Field(False, description="Parameter histograms in TensorBoard.")
    pictures: int = Field(4, ge=0, description="Validation images shown in TensorBoard.")


class ParameterGroup(Strict):
    """What is different about some weights."""

    match: str = Field(..., min_length=1, description="Names of parts or weights, with * and ?.")
    lr_scale: float = Field(1.0, ge=0, description="Factor of their learning rate.")
    weight_decay: float | None = Field(None, ge=0, description="Their own weight decay.")


class OptimizerExtras(Strict):
    """Keys of `optimizer` beside its class: which weights learn how fast, and which decay."""

    decay_norm_and_bias: bool = Field(True, description="Whether norm weights and biases decay as others do.")
    groups: list[dict[str, Any]] = Field([], description="Weights that differ; the first that applies counts.")
    layer_decay: float | None = Field(None, gt=0, le=1, description="Factor of the learning rate per layer of depth.")


class SchedulerExtras(Strict):
    """Keys of `lr_scheduler` beside its class."""

    interval: Literal["epoch", "step"] | None = Field(None, description="When it moves: after each of these.")
    warmup: int | None = Field(None, ge=1, description="So many moves from near zero to the full rate before it.")
    moves: int | None = Field(None, ge=1, description="In a list: for how many moves it acts; the last takes the rest.")


class WandbOptions(Strict):
    """Where Weights & Biases keeps a run."""

    project: str | None = Field(None, min_length=1, description="Project; null: the name of the config.")
    entity: str | None = Field(None, min_length=1, description="User or team; null: the account's own.")
    mode: Literal["online", "offline", "disabled"] = Field("online", description="offline: in the run's folder.")


class MlflowOptions(Strict):
    """Where MLflow keeps a run."""

    experiment: str | None = Field(None, min_length=1, description="Experiment; null: the name of the config.")
    tracking_uri: str | None = Field(
        None, min_length=1, description="Server, database or folder; null: mlruns in the run's folder."
    )


class Visualization(Strict):
    """Services that keep the curves of a run, and keys of older dialects, which `load_config` moves elsewhere."""

    wandb: dict[str, Any] | None = Field(None, description="Write to Weights & Biases: project, entity, mode.")
    mlflow: dict[str, Any] | None = Field(None, description="Write to MLflow: experiment, tracking_uri.")
    tensorboard: bool = Field(True, description="Now trainer.tensorboard.")
    tensorboardX: bool = Field(True, description="Now trainer.tensorboard.")  # noqa: N815 - as those files have it
    log_dir: str | None = Field(None, description="Not used: events are in the run's folder.")


TRACKERS: dict[str, type[Strict]] = {"wandb": WandbOptions, "mlflow": MlflowOptions}


class TopLevel(Strict):
    """The sections of a configuration; those that name classes are checked against the registry."""

    name: str = Field(..., min_length=1, description="Name of the experiment and of its folder.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Everything random follows from it.")
    n_gpu: int | None = Field(None, ge=0, description="GPUs to use, fewer where fewer are there; null: one, if any.")
    arch: Any = Field(None, description="The network.")
    data_loader: Any = Field(None, description="The data; its validation_split holds back a part for validation.")
    train_loader: Any = Field(None, description="The training data, where validation data is named apart.")
    valid_loader: Any = Field(None, description="The validation data.")
    test_loader: Any = Field(None, description="The test data.")
    optimizer: Any = Field(None, description="The optimizer; it gets the network's parameters.")
    loss: Any = Field(None, description='A loss, or a list of losses with a "weight" each.')
    metrics: list[Any] = Field([], description="What validation and test report.")
    lr_scheduler: Any = Field(None, description='The course of the learning rate; "interval" says when it steps.')
    trainer: Any = Field(None, description="How long to train, what to keep, what to watch.")
    visualization: Any = Field(None, description="Services that keep the curves: wandb, mlflow.")
    search: dict[str, Any] = Field({}, description="How a search draws and judges candidates.")


def trainer_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer section with every default filled in.

    Raises:
        ConfigError: A key is unknown or a value wrong.
    """
    faults = Faults()
    options = check_trainer(config.get("trainer", {}), faults)
    faults.raise_if_any()
    return options.model_dump() if options is not None else {}


def check_trainer(section: Any, faults: Faults) -> TrainerOptions | None:
    """Check the trainer section and the shape of its monitor."""
    options = check_section(TrainerOptions, section, "trainer", faults)
    if isinstance(section, Mapping) and isinstance(section.get("monitor"), str):
        _check_monitor(section["monitor"], faults)
    return options


def check_visualization(section: Any, faults: Faults) -> None:
    """Check the visualization section and what it says of each service."""
    options = check_section(Visualization, section, "visualization", faults)
    for name, model in TRACKERS.items():
        if options is not None and getattr(options, name) is not None:
            check_section(model, getattr(options, name), f"visualization.{name}", faults)


def check_section(model: type[Model], value: Any, path: str, faults: Faults) -> Model | None:
    """Check an object against its model; None where it does not hold, each reason in `faults`."""
    try:
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        for place, message in _explained(model, value, error):
            faults.add(join_path(path, place), message)
        return None


def check_extras(model: type[BaseModel], extras: Mapping[str, Any], path: str, faults: Faults) -> None:
    """Check the keys of a spec beside `type` and `args`."""
    checked = check_section(model, dict(extras), path, faults)
    if isinstance(checked, OptimizerExtras):
        for index, group in enumerate(checked.groups):
            check_section(ParameterGroup, group, join_path(path, f"groups.{index}"), faults)


def _explained(model: type[BaseModel], value: Any, error: ValidationError) -> Iterator[tuple[str, str]]:
    for item in error.errors():
        if not item["loc"]:
            yield "", f"{show(value)} must be an object. Write {{...}}."
            continue
        key = str(item["loc"][0])
        field = model.model_fields.get(key)
        if field is None:
            yield key, unknown_name("key", key, model.model_fields)
        elif item["type"] == "missing":
            yield key, f"missing. Add it: {field.description}"
        else:
            yield key, wrong_value(value[key], field_annotation(field))


def _check_monitor(monitor: str, faults: Faults) -> None:
    words = monitor.split()
    if monitor == "off":
        return
    if len(words) == 2 and words[0] in ("min", "max"):
        if words[1].startswith("valid_"):
            repair = f"{words[0]} val_{words[1].removeprefix('valid_')}"
            faults.add(
                "trainer.monitor", f'{show(monitor)}: validation results begin with val_. Did you mean "{repair}"?'
            )
        return
    name = words[-1] if words and words[-1] not in ("min", "max", "off") else "val_loss"
    mode = closest(words[0], ("min", "max")) if len(words) == 2 else None
    suggestion = f'"{mode} {name}"' if mode else f'"min {name}" or "max {name}"'
    faults.add(
        "trainer.monitor", f'{show(monitor)} must be "min NAME", "max NAME" or "off". Did you mean {suggestion}?'
    )


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
    """Check the search section and its parts; the classes that it names are checked against the registry."""
    options = check_section(SearchOptions, section, "search", faults)
    for name, model in SEARCH_PARTS.items():
        part = section.get(name) if isinstance(section, Mapping) else None
        if isinstance(part, Mapping):
            check_section(model, part, join_path("search", name), faults)
    return options
