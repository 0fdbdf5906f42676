"""The sections with fixed keys: every key with its type, default, range and description is written here, once.

Sections that name a class (`Any` here) are checked against the registry and the signature of that class.
"""

import inspect
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from config.checking.signatures import wrong_value
from config.faults import Faults, closest, join_path, show, unknown_name

LOADER_SECTIONS = ("data_loader", "train_loader", "valid_loader", "test_loader")
SHARED_NAMES = ("num_classes", "in_channels", "ignore_index")
MAX_SEED = 2**63 - 1  # the largest that torch's generators take

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A section of which every key and type is known."""

    # Built at first use: `train.py --help` needs no model.
    model_config = ConfigDict(strict=True, extra="forbid", defer_build=True)


class TrainerOptions(Strict):
    """Length of the training, its checkpoints, and the result that it watches."""

    type: str = Field("Trainer", description="Class of the loop; a subclass of BaseTrainer.")
    args: dict[str, Any] = Field({}, description="Arguments of the class, such as those of BilevelTrainer.")
    epochs: int = Field(..., ge=1, description="Passes over the training data.")
    len_epoch: int | None = Field(None, ge=1, description="Steps per epoch; null: one pass over the loader.")
    train_on: Literal["train", "train+valid"] = Field(
        "train", description="train+valid: learn from the validation data, too, and validate on nothing."
    )
    save_dir: str = Field("saved/", min_length=1, description="Folder that the run's folder is made in.")
    save_period: int | None = Field(None, ge=1, description="Save a checkpoint of every N-th epoch that stays.")
    save_every_steps: int | None = Field(None, ge=1, description="Renew checkpoint-last.pth every N steps.")
    save_every_minutes: float | None = Field(None, gt=0, description="Renew checkpoint-last.pth every N minutes.")
    monitor: str = Field("off", description='What makes a model the best: "max val_miou", "min val_loss" or "off".')
    early_stop: int | None = Field(None, ge=1, description="Stop after N epochs in which the monitor did not improve.")
    verbosity: int = Field(2, ge=0, le=2, description="0: warnings, 1: information, 2: details.")
    tensorboard: bool = Field(True, description="Write TensorBoard events into the run's folder.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="auto: bf16 if the device has it.")
    deterministic: bool = Field(True, description="Equal runs end in the same bytes; false: faster GPU algorithms.")
    channels_last: bool = Field(True, description="Memory layout of images and convolutions.")
    accumulate: int = Field(1, ge=1, description="Batches whose gradients make one step of the optimizer.")
    clip_norm: float | None = Field(None, gt=0, description="Largest L2 norm of the gradients of a step.")
    clip_value: float | None = Field(None, gt=0, description="Largest absolute value of each number of a gradient.")
    ema: float | None = Field(None, gt=0, lt=1, description="Decay of averaged weights, used from then on, e.g. 0.999.")
    freeze: list[str] = Field([], description='Parts that do not learn, e.g. ["encoder", "*.bias"].')
    unfreeze_epoch: int | None = Field(None, ge=2, description="Epoch from which all parts learn.")
    sync_batch_norm: bool = Field(False, description="Norm statistics over all processes; on GPUs under torchrun.")
    compile: bool = Field(False, description="Compile the network with torch.compile.")
    checkpoint_activations: list[str] = Field([], description="Parts computed again in backward to save memory.")
    max_time: float | None = Field(None, gt=0, description="Save and end after this many minutes of this process.")
    loader_timeout: float | None = Field(
        600.0, gt=0, description="Seconds without a batch of the loader workers that are an error; null: wait."
    )
    histograms: bool = Field(False, description="Parameter histograms in TensorBoard.")
    pictures: int = Field(4, ge=0, description="Validation images shown in TensorBoard.")

    @field_validator("monitor")
    @classmethod
    def check_monitor(cls, monitor: str) -> str:
        """Refuse a monitor that is not a mode and the name of a result."""
        words = monitor.split()
        if monitor == "off" or (len(words) == 2 and words[0] in ("min", "max") and not words[1].startswith("valid_")):
            return monitor
        if len(words) == 2 and words[0] in ("min", "max"):
            repair = f"{words[0]} val_{words[1].removeprefix('valid_')}"
            raise ValueError(f'{show(monitor)}: validation results begin with val_. Did you mean "{repair}"?')
        name = words[-1] if words and words[-1] not in ("min", "max", "off") else "val_loss"
        mode = closest(words[0], ("min", "max")) if len(words) == 2 else None
        suggestion = f'"{mode} {name}"' if mode else f'"min {name}" or "max {name}"'
        raise ValueError(f'{show(monitor)} must be "min NAME", "max NAME" or "off". Did you mean {suggestion}?')


class ClassSection(Strict):
    """A class and its arguments, which are checked against its signature."""

    type: str = Field(..., min_length=1, description="Name of the class.")
    args: dict[str, Any] | None = Field(None, description="Its arguments by name.")


class LossSection(ClassSection):
    """A loss, with its weight in a sum of several."""

    weight: float = Field(1.0, description="Its factor in the sum of losses.")


class ParameterGroup(Strict):
    """Settings of some weights that differ from those of the others."""

    match: str = Field(..., min_length=1, description="Names of parts or weights, with * and ?.")
    lr_scale: float = Field(1.0, ge=0, description="Factor of their learning rate.")
    weight_decay: float | None = Field(None, ge=0, description="Their weight decay; null: that of the optimizer.")


class LookaheadOptions(Strict):
    """Slow weights that follow those of the optimizer."""

    sync_period: int = Field(6, ge=1, description="Steps after which the slow weights move and are taken over.")
    slow_step_size: float = Field(0.5, gt=0, le=1, description="Part of the way that they move.")


class OptimizerSection(ClassSection):
    """The optimizer, with learning rates and decay of single weights."""

    decay_norm_and_bias: bool = Field(True, description="Whether norm weights and biases decay as others do.")
    groups: list[ParameterGroup] = Field([], description="Weights that differ; the first that applies counts.")
    layer_decay: float | None = Field(None, gt=0, le=1, description="Factor of the learning rate per layer of depth.")
    lookahead: LookaheadOptions | None = Field(None, description="Slow weights: sync_period, slow_step_size.")


class SchedulerSection(ClassSection):
    """A schedule of the learning rate, or a part of one."""

    interval: Literal["epoch", "step"] | None = Field(None, description="When it moves: after each of these.")
    warmup: int | None = Field(None, ge=1, description="Number of moves from near zero to the full rate before it.")
    moves: int | None = Field(None, ge=1, description="In a list: for how many moves it acts; the last takes the rest.")
    on_more_epochs: Literal["refuse", "rescale"] | None = Field(
        None, description="Resuming with other trainer.epochs: refuse, or continue on the curve of the new length."
    )


CLASS_SECTIONS: Mapping[str, type[ClassSection]] = {
    "loss": LossSection, "optimizer": OptimizerSection, "lr_scheduler": SchedulerSection
}  # fmt: skip
"""Sections that have more keys than a class and its arguments."""


class WandbOptions(Strict):
    """Project and account of a run in Weights & Biases."""

    project: str | None = Field(None, min_length=1, description="Project; null: the name of the config.")
    entity: str | None = Field(None, min_length=1, description="User or team; null: that of the account.")
    mode: Literal["online", "offline", "disabled"] = Field("online", description="offline: in the run's folder.")


class MlflowOptions(Strict):
    """Experiment and server of a run in MLflow."""

    experiment: str | None = Field(None, min_length=1, description="Experiment; null: the name of the config.")
    tracking_uri: str | None = Field(None, min_length=1, description="Server, database or folder; null: the run's.")


class Visualization(Strict):
    """Services that show the curves of a run, and keys of older dialects, which `load_config` moves elsewhere."""

    wandb: WandbOptions | None = Field(None, description="Write to Weights & Biases: project, entity, mode.")
    mlflow: MlflowOptions | None = Field(None, description="Write to MLflow: experiment, tracking_uri.")
    tensorboard: bool = Field(True, deprecated=True, description="Now trainer.tensorboard.")
    tensorboardX: bool = Field(True, deprecated=True, description="Now trainer.tensorboard.")  # noqa: N815 - in old files
    log_dir: str | None = Field(None, deprecated=True, description="Not used: events are in the run's folder.")


class CandidateLimits(Strict):
    """Limits of a candidate's cost, checked before it is trained."""

    max_params: int | None = Field(None, ge=1, description="Weights of the network.")
    max_flops: int | None = Field(None, ge=1, description="FLOPs of one forward pass.")
    max_memory_mb: float | None = Field(None, gt=0, description="Predicted memory of training, in megabytes.")
    max_latency_ms: float | None = Field(None, gt=0, description="Measured time of one forward pass, in milliseconds.")
    input_size: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, min_length=1, max_length=2, description="[height, width] at which FLOPs and latency are stated."
    )


class Budget(Strict):
    """Limits of a search's cost."""

    epochs: int | None = Field(None, ge=1, description="Epochs in all; null: as the scheduler wants.")
    max_time: float | None = Field(None, gt=0, description="Minutes in all, earlier sessions included.")
    disk_mb: int | None = Field(None, ge=1, description="Megabytes that checkpoints may take before some are deleted.")


class RetrainOptions(Strict):
    """Settings for retraining the best candidates."""

    top: int = Field(1, ge=0, description="Candidates that are trained again from the beginning.")
    epochs: int | None = Field(None, ge=1, description="Epochs of each; null: trainer.epochs.")
    seeds: int = Field(1, ge=1, description="Trainings of each.")
    train_on: Literal["train", "train+valid"] = Field(
        "train", description="train+valid: with the validation data, all epochs; the result has the last weights."
    )
    changes: dict[str, Any] = Field({}, description="Values that only these trainings have, by JSON path.")
    onnx: bool | None = Field(None, description="Leave the network as ONNX, too; null: if the strategy is POPNAS.")


class GridOptions(Strict):
    """A grid study: every condition with every seed, and in every fold."""

    conditions: dict[str, dict[str, Any]] = Field(
        ..., min_length=1, description="Changes of the config by the name of the condition; {}: none."
    )
    seeds: int = Field(1, ge=1, description="Trainings of each condition, with the seed of the config and those after.")
    folds: int | None = Field(None, ge=2, description="Folds of the training data, each held out once; null: none.")

    @field_validator("conditions")
    @classmethod
    def check_names(cls, conditions: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Refuse a condition without a name."""
        if not all(name.strip() for name in conditions):
            raise ValueError('"" names a condition, and tables show its name. Write for example "baseline": {}.')
        return conditions


class SearchOptions(Strict):
    """Settings of a search."""

    num_samples: int = Field(1, ge=1, description="Candidates to train.")
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Seed of the draws; null: the seed of the config.")
    sampler: Any = Field(None, description='The sampler: which candidate is next; null: "auto".')
    first: list[dict[str, Any]] = Field([], description="Known candidates, drawn first: values by their JSON paths.")
    scheduler: Any = Field(None, description="The scheduler: how long each candidate trains; null: RandomSearch.")
    objectives: list[str] | None = Field(None, min_length=1, description='["max val_miou"]; null: trainer.monitor.')
    constraints: list[str] = Field([], description='Bounds on results: ["val_miou >= 0.9"].')
    limits: CandidateLimits | None = Field(None, description="max_params, max_flops, max_memory_mb, max_latency_ms.")
    budget: Budget = Field(Budget(), description="epochs, max_time, disk_mb.")
    strategy: Any = Field(None, description="The strategy: which work is done in which order; null: MultiFidelity.")
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description='Resources of each training: {"gpus": 2} runs it as two processes.'
    )
    warm_start: str | None = Field(None, description="Folder of another study, whose results the sampler uses, too.")
    study: GridOptions | None = Field(None, description="A grid instead of draws: conditions, seeds, folds.")
    folds: int | None = Field(
        None, ge=2, description="Folds of the training data, each of which a candidate holds out once; null: none."
    )
    run_dir: str | None = Field(
        None, description="Folder for the runs of candidates, e.g. on a share; null: the folder of the study."
    )
    executor: Any = Field("serial", description="The executor of the tasks: serial, processes, ray or table.")
    max_epoch_time: float | None = Field(None, gt=0, description="Seconds after which a silent worker is given up.")
    retrain: RetrainOptions | None = Field(None, description="Training the best again: top, epochs, seeds; null: not.")


SEARCH_CLASSES = ("sampler", "scheduler", "strategy", "executor")
SEARCH_VALUES = {
    "sampler": ("space", "fidelities", "num_objectives"),
    "scheduler": ("num_samples", "max_epochs"),
    "strategy": ("parts",),
}
"""Arguments of these classes that the search gives, not their `args`."""


class TopLevel(Strict):
    """The sections of a configuration."""

    name: str = Field(..., min_length=1, description="Name of the experiment and of its folder.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Everything random follows from it.")
    n_gpu: int | None = Field(None, ge=0, description="GPUs to use, fewer if there are fewer; null: one, if any.")
    arch: Any = Field(..., description="The network.")
    data_loader: Any = Field(None, description="The data; its validation_split holds back a part for validation.")
    train_loader: Any = Field(None, description="The training data, if there is a valid_loader.")
    valid_loader: Any = Field(None, description="The validation data.")
    test_loader: Any = Field(None, description="The test data.")
    optimizer: Any = Field(..., description="The optimizer; it gets the network's parameters.")
    loss: Any = Field(..., description='A loss, or a list of losses with a "weight" each.')
    metrics: list[Any] = Field([], description="Results of validation and test.")
    lr_scheduler: Any = Field(None, description='The course of the learning rate; "interval" says when it steps.')
    trainer: TrainerOptions = Field(..., description="Length of the training, its checkpoints, the result it watches.")
    visualization: Visualization = Field(Visualization(), description="Services that show the curves: wandb, mlflow.")
    search: SearchOptions = Field(SearchOptions(), description="How a search draws and compares candidates.")

    @field_validator("name")
    @classmethod
    def check_name(cls, name: str) -> str:
        """Refuse a name that leads elsewhere as a folder."""
        if name in (".", "..") or "/" in name or "\\" in name:
            raise ValueError(f"{show(name)} cannot name a folder. Leave out slashes; the folder is that of save_dir.")
        return name


def trainer_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the trainer section with every default filled in.

    Raises:
        ConfigError: A key is unknown or a value wrong.
    """
    faults = Faults()
    options = check_section(TrainerOptions, config.get("trainer", {}), "trainer", faults)
    if options is None:
        raise faults.error()
    return options.model_dump()


def check_section(model: type[Model], value: Any, path: str, faults: Faults) -> Model | None:
    """Check an object against its model; None if it is wrong, each reason in `faults`."""
    try:  # as JSON text: strict mode takes 1 for 1.0 only there
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        for item in error.errors():
            place, message = _explain(model, value, item)
            faults.add(join_path(path, *place), message)
        return None


def _explain(model: type[BaseModel], value: Any, error: ErrorDetails) -> tuple[list[str | int], str]:
    """Return the place of a pydantic error, and its message as value, rule and repair."""
    section: type[BaseModel] | None = model
    field: FieldInfo | None = None
    place: list[str | int] = []
    for key in error["loc"]:
        if section is None:  # inside a plain list or mapping, which is reported as a whole
            break
        place.append(key)
        if isinstance(key, str):
            field = section.model_fields.get(key)
            if field is None:
                return place, unknown_name("key", key, section.model_fields)
            if key not in value:
                return place, f'missing. Add "{key}": {field.description}'
            # The model of a key that holds an object, or a list of objects: its keys are next in the location.
            types = (field.annotation, *get_args(field.annotation))
            section = next((kind for kind in types if inspect.isclass(kind) and issubclass(kind, BaseModel)), None)
        value = value[key]
    if error["type"] == "value_error":
        return place, str(error["ctx"]["error"])
    if field is None or isinstance(place[-1], int):
        return place, f"{show(value)} must be an object. Write {{...}}."
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[(field.annotation, *field.metadata, "")])  # type: ignore[arg-type]
    return place, wrong_value(value, adapter)


def shared_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `num_classes`, `in_channels` and `ignore_index` as the arguments of the network or of any loader say.

    A network with `num_classes` 1 separates two classes by the sign of its one channel. The names of the classes, whose
    order gives the ids, are compared as well.

    Raises:
        ConfigError: Two places disagree.
    """
    faults = Faults()
    found: dict[str, tuple[Any, str]] = {}
    for section in ("arch", *LOADER_SECTIONS):
        spec = config.get(section)
        args = spec.get("args") if isinstance(spec, Mapping) else None
        for name in (*SHARED_NAMES, "classes"):
            value = args.get(name) if isinstance(args, Mapping) else None
            # Wrong types are reported with the signature of the class.
            is_names = name == "classes" and section != "arch" and isinstance(value, list)
            if not is_names and (name == "classes" or not isinstance(value, int) or isinstance(value, bool)):
                continue
            here = f"{section}.args.{name}"
            if (section, name, value) == ("arch", "num_classes", 1):
                value, here = 2, f"{here} (1: one channel for two classes)"
            first, first_place = found.setdefault(name, (value, here))
            if first != value:
                faults.add(here, f"{show(value)}, but {first_place} is {show(first)}. Both must agree: say it once.")
    if faults:
        raise faults.error()
    return {name: value for name, (value, _) in found.items() if name in SHARED_NAMES}
