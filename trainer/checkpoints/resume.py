"""The folder of a run, and its start: from the beginning, an earlier run's state, or another run's weights."""

import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from base.base_trainer import BaseTrainer
from trainer.checkpoints.same_data import is_data_place
from trainer.runtime.devices import unwrap
from utils.checkpoint_file import BEST, LAST, checkpoints_in, evaluated_weights, newest_good, read_saved
from utils.errors import CheckpointError, ConfigError
from utils.files import folder_lock, make_stamped_folder, read_json_object
from utils.weight_names import FittedNames, first_names, fit_names
from utils.writing.text import in_one_line

Config = dict[str, Any]
DIFFERENCES_SHOWN = 5
FAULTS_SHOWN = 3
EARLIER_RUN = ("best", "last")
RECORDS = ("config.json", "environment.json")
# Keys that may differ between a run and its continuation: they change how it runs, not its results.
RUNTIME_KEYS = {"n_workers", "num_workers", "pin_memory", "cache_mb", "max_decoded_mb", "palette", "on_more_epochs"}
RUNTIME_PATHS = {
    "n_gpu",
    "visualization",
    "trainer.epochs",
    "trainer.early_stop",
    "trainer.save_dir",
    "trainer.save_period",
    "trainer.save_every_steps",
    "trainer.save_every_minutes",
    "trainer.max_time",
    "trainer.loader_timeout",
    "trainer.verbosity",
    "trainer.tensorboard",
    "trainer.histograms",
    "trainer.pictures",
}
_STAMP = re.compile(r"(\d{8}_\d{6})(?:_(\d{1,3})(?!\d))?")
logger = logging.getLogger(__name__)


def create_run_folder(save_dir: str, name: str, named: Path | None = None) -> Path:
    """Create `<save_dir>/<name>/<YYYYmmdd_HHMMSS>`, with a number after it if two runs start in one second.

    Args:
        save_dir: Holds the runs of every name.
        name: Of the config.
        named: Create this folder instead. Records that a run left there which died before its first checkpoint are
            removed.

    Raises:
        ConfigError: The folder cannot be created, or already holds a run.
    """
    parent = Path(save_dir) / name if named is None else named
    try:
        if named is None:
            folder = make_stamped_folder(parent)
        else:
            named.mkdir(parents=True, exist_ok=True)
            folder = named
            # Without a checkpoint nothing can be resumed: the run that died there is replaced.
            if checkpoints_in(named):
                raise ConfigError(f"{named} holds a run's checkpoints. Two runs never share a folder. Name another.")
            for record in RECORDS:
                (named / record).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"trainer.save_dir: {parent} cannot be written ({error.strerror}). Runs are saved below it. Name a folder "
            "that you may write to: trainer.save_dir=FOLDER."
        ) from error
    if folder is None:
        raise ConfigError(f"trainer.save_dir: {parent} holds a thousand runs of this second. Try again.")
    return folder


def lock_run_folder(folder: Path | None) -> AbstractContextManager[None]:
    """Lock a run's folder for a block, so that only one process trains there.

    Args:
        folder: The run's folder; None (a process that writes nothing) locks nothing.

    Raises:
        CheckpointError: Another process trains there.
    """
    return folder_lock(
        folder,
        lambda process: CheckpointError(
            f"{folder}: process {process} is training there. One process at a time can continue a run. Wait for its "
            "end, or start another run without --resume."
        ),
    )


def run_folders(config: Mapping[str, Any]) -> list[Path]:
    """Return the folders of the runs of a config's name that have a checkpoint, newest first.

    A run is as old as its records say, whatever the name of its folder; a copy comes after the folder that it was
    copied from.
    """
    parent = Path(config.get("trainer", {}).get("save_dir", "saved/")) / config["name"]
    folders = [path for path in parent.glob("*") if (path / "config.json").is_file() and checkpoints_in(path)]
    return sorted(folders, key=_run_age, reverse=True)


def _run_age(folder: Path) -> tuple[datetime, int, bool, str]:
    """Return when a run began, its number in that second, whether its folder has its first name, and the name."""
    try:
        record = _read_record(folder, "environment.json")
    except CheckpointError:  # it is reported if the config of this run is asked for
        record = {}
    first_name = record.get("folder")
    try:
        return datetime.fromisoformat(record["started"]).astimezone(UTC), 0, folder.name == first_name, folder.name
    except (KeyError, TypeError, ValueError):  # of an earlier version, whose names are local times
        pass
    found = _STAMP.match(first_name if isinstance(first_name, str) else folder.name)
    began = datetime.fromtimestamp((folder / "config.json").stat().st_mtime)
    with suppress(ValueError):  # digits that are no time
        began = datetime.strptime(found[1], "%Y%m%d_%H%M%S") if found else began
    number = int(found[2] or 0) if found else 0
    original = first_name if isinstance(first_name, str) else found[0] if found else folder.name
    return began.astimezone(UTC), number, folder.name == original, folder.name


def asked_config(folder: Path) -> Mapping[str, Any]:
    """Return the config that a run was started with, before the run completed it from its data.

    Raises:
        CheckpointError: The record of it is damaged.
    """
    config = _read_record(folder, "environment.json").get("asked", {})
    if not isinstance(config, Mapping):
        raise _damaged_record(f'{folder / "environment.json"}: "asked" is not an object')
    return config


def _read_record(folder: Path, name: str) -> dict[str, Any]:
    """Return the content of a record of a run, empty if there is none."""
    return read_json_object(folder / name, _damaged_record)


def _damaged_record(reason: str) -> CheckpointError:
    return CheckpointError(
        f"{reason}. It tells which config a run was started with. Put back a copy, or remove the file and name the run "
        "itself: --resume FOLDER."
    )


def config_differences(left: Any, right: Any, path: str = "") -> list[str]:
    """Return the JSON paths at which two configs differ, except for keys that only say how to run."""
    if path in RUNTIME_PATHS:
        return []
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        pairs = zip(left, right, strict=True)
        return [path] if any(config_differences(*pair, f"{path}.{n}") for n, pair in enumerate(pairs)) else []
    if isinstance(left, str) and isinstance(right, Mapping):  # a class by its name alone
        left = {"type": left}
    elif isinstance(left, Mapping) and isinstance(right, str):
        right = {"type": right}
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        found: list[str] = []
        for key in {**left, **right}:
            if key not in RUNTIME_KEYS:
                found += config_differences(left.get(key), right.get(key), f"{path}.{key}" if path else key)
        return found
    return [] if left == right else [path]


@dataclass(frozen=True)
class Start:
    """The state that a run starts from.

    Attributes:
        config: The config to train.
        state: A checkpoint to continue exactly.
        folder: The run folder to continue in; None creates a new one.
        weights: A checkpoint whose weights to start with, for fine-tuning.
        new_folder: The folder to create for a new run; None: a new one below `trainer.save_dir`.
        earlier: The config that the continued run was started with, if only that run is named.
    """

    config: Config
    state: Config | None = None
    folder: Path | None = None
    weights: Config | None = None
    new_folder: Path | None = None
    earlier: Config | None = None


def resolve_start(
    config: Config | None,
    resume: str | None,
    new_folder: Path | None = None,
    *,
    identify: Callable[[Config], Mapping[str, Any]] | None = None,
) -> Start:
    """Return the start that `--resume` means, with or without a config.

    Args:
        config: The config of `-c`; None if only `resume` was given.
        resume: `auto`, `last`, `best`, a checkpoint, a run folder, or None.
        new_folder: The folder for a new run.
        identify: Config -> what `identify_data` returns for its data, to find a run whose data was moved since; None
            finds no such run.

    Raises:
        CheckpointError: The checkpoint or run is missing, is damaged, or belongs to another config.
    """
    if config is None:  # the checkpoint's, in its folder if it is the newest state
        path = Path(resume or "")
        folder = path if os.path.isdir(path) else path.parent
        wanted = folder / LAST if os.path.isdir(path) else path
        if not os.path.exists(path):
            raise CheckpointError(
                f"{path}: there is no such file. Name a checkpoint (.pth) or a run folder that holds one."
            )
        file, state = newest_good(folder, wanted)
        if "config" not in state:
            raise CheckpointError(f"{file}: holds no config to continue. To start with its weights, name one: -c FILE.")
        # An older checkpoint is forked into a new folder, so that nothing of the run is overwritten.
        is_newest = wanted.name == LAST and (folder / "config.json").is_file()
        earlier = dict(asked_config(folder)) or None
        return Start(state["config"], state, folder if is_newest else None, new_folder=new_folder, earlier=earlier)
    if resume is None:
        return Start(config, new_folder=new_folder)
    if resume not in ("auto", "last", "best"):
        return Start(config, weights=read_saved(Path(resume))[1], new_folder=new_folder)
    reason, moved = "", []
    for folder in run_folders(config):  # the newest run of the same config
        found = differences_from_run(folder, config)
        if not found:
            _, state = newest_good(folder, folder / (BEST if resume == "best" else LAST))
            return Start(config, state, None if resume == "best" else folder, new_folder=new_folder)
        if all(map(is_data_place, found)):
            moved.append((folder, found))
        reason = reason or f"{folder} differs at {', '.join(found[:DIFFERENCES_SHOWN])}"
    data = identify(config) if moved and identify is not None else None
    for folder, found in moved:
        _, state = newest_good(folder, folder / (BEST if resume == "best" else LAST))
        if data is not None and state.get("data") == data and all(each["digest"] for each in data.values()):
            places = in_one_line(f"{folder} lies elsewhere now ({', '.join(found)})")
            logger.info("The data of %s; its samples are the same.", places)
            return Start(config, state, None if resume == "best" else folder, new_folder=new_folder)
        if folder == moved[0][0] and reason.startswith(str(folder)):
            reason += ", and the samples there are others or not known"
    reason = reason or "there is none"
    if resume == "auto":
        name, reason = in_one_line(config["name"]), in_one_line(reason)
        logger.info('No earlier run of "%s" to continue (%s): starting a new one.', name, reason)
        return Start(config, new_folder=new_folder)
    raise CheckpointError(
        f'There is no run of "{config["name"]}" with this config to continue: {reason}. --resume {resume} continues '
        "an unchanged config. Undo the change, or fine-tune with --resume FILE."
    )


def differences_from_run(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """Return the JSON paths at which a config differs from that of a run.

    It may also be the `config.json` of its folder, which the run has completed from its data.

    Raises:
        CheckpointError: A record of the run is damaged.
    """
    completed = _read_record(folder, "config.json")
    earlier = [asked_config(folder), *([completed] if completed else [])]
    return min((config_differences(each, config) for each in earlier), key=len)


def restore(trainer: BaseTrainer, start: Start) -> None:
    """Put a trainer into the state that a run starts from.

    Raises:
        CheckpointError: The state does not fit the model or optimizer of the config.
    """
    if start.state is not None:
        try:
            unwrap(trainer.model).load_state_dict(start.state["state_dict"])
            trainer.load_state_dict(start.state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"The checkpoint does not fit this config: {str(error).splitlines()[0]}. A run continues with the "
                "arch, optimizer and lr_scheduler that it was saved with. Use these, or fine-tune: -c, --resume FILE."
            ) from error
        logger.info("Continuing from epoch %d, step %d.", trainer.epoch + 1, trainer.batch)
    elif start.weights is not None:
        for line in load_matching_weights(trainer.model, weights_of(start.weights)):
            logger.warning("Fine-tuning: %s", line)
        before = class_names_of(start.weights.get("config"))
        now = list(getattr(getattr(trainer, "train_loader", None), "class_names", ()))
        if before and now and before != now:
            logger.warning(
                "Fine-tuning: the outputs of the checkpoint stand for %s, those of this run for %s, in this order.",
                ", ".join(before), ", ".join(now),
            )  # fmt: skip


def class_names_of(config: Any) -> list[str]:
    """Return the names of the classes in the config of a checkpoint; empty if it has none."""
    sections = config.values() if isinstance(config, Mapping) else ()
    arguments = [section.get("args") for section in sections if isinstance(section, Mapping)]
    found = [each.get("classes") for each in arguments if isinstance(each, Mapping)]
    return next(([str(name) for name in names] for names in found if isinstance(names, list) and names), [])


def find_checkpoint(resume: str, asked: Mapping[str, Any] | None) -> tuple[Path, dict[str, Any]]:
    """Return the checkpoint that `--resume` of a test names, as its file and content.

    Args:
        resume: A checkpoint, a run folder (its best one), or `best` or `last` of the newest run of `asked`.
        asked: The config of `-c`. If every run of its name had another config, the newest of them is used.

    Raises:
        CheckpointError: It is missing or damaged.
        ConfigError: `best` or `last` without a config.
    """
    if resume not in EARLIER_RUN:
        return read_saved(Path(resume))
    if asked is None:
        raise ConfigError(f"--resume {resume}: it must be known of which runs. Add -c FILE, or name a checkpoint.")
    folders = run_folders(asked)
    if not folders:
        raise CheckpointError(
            f'There is no run of "{asked["name"]}" below {asked.get("trainer", {}).get("save_dir", "saved/")}. '
            "--resume last and best use an earlier run. Leave --resume out, or name a checkpoint."
        )
    differences = [differences_from_run(folder, asked) for folder in folders]
    folder = folders[differences.index([])] if [] in differences else folders[0]
    if [] not in differences:
        logger.warning(
            "No run had exactly this config: %s, the newest, is used, which differs at %s.",
            folder,
            ", ".join(differences[0][:DIFFERENCES_SHOWN]),
        )
    return newest_good(folder) if resume == "last" else read_saved(folder)


def weights_of(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Return the weights in a checkpoint of this project, of one with the same key, or in a bare state dict.

    If the run has a moving average of its weights, that is returned: validation has evaluated it.

    Raises:
        CheckpointError: There are none.
    """
    state = evaluated_weights(content)
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"A checkpoint with the keys {', '.join(map(str, list(content)[:5]))} holds no weights. They are expected "
            'under "state_dict", or as the whole file. Name another file.'
        )
    # Other programs save the wrapped network of several GPUs.
    return {name.removeprefix("module."): value for name, value in state.items()}


def weight_differences(model: nn.Module, state_dict: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Return the names of weights that are missing in a state dict, are not in the model, or have another shape."""
    own = model.state_dict()
    missing = [name for name in own if name not in state_dict]
    unknown = [name for name in state_dict if name not in own]
    other_shape = [name for name in state_dict if name in own and own[name].shape != state_dict[name].shape]
    return missing, unknown, other_shape


def load_matching_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> list[str]:
    """Load the weights whose name and shape fit, for fine-tuning; return a line for each that does not fit.

    Raises:
        CheckpointError: Nothing fits.
    """
    model = unwrap(model)
    own, (state_dict, fitted) = model.state_dict(), _with_fitted_names(model, state_dict)
    missing, unknown, other_shape = weight_differences(model, state_dict)
    unfit = {*unknown, *other_shape}
    fitting = {name: tensor for name, tensor in state_dict.items() if name not in unfit}
    if not fitting:
        raise CheckpointError(
            f"None of the checkpoint's {len(state_dict)} weights ({first_names(list(state_dict))}) has the name and "
            f"shape of one of the model's {len(own)} ({first_names(list(own))}). {_repair_of_names(fitted)}"
        )
    model.load_state_dict(fitting, strict=False)
    lines = [fitted.change] if fitted.change else []
    lines += [f"{name}: not in the checkpoint, keeps its first values" for name in missing]
    for name, tensor in state_dict.items():
        if name in unknown:
            lines.append(f"{name}: not in the model, not loaded")
        elif name in other_shape:
            shapes = f"{tuple(tensor.shape)} does not fit the model's {tuple(own[name].shape)}"
            lines.append(f"{name}: {shapes}, not loaded")
    return lines


def _with_fitted_names(model: nn.Module, state_dict: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], FittedNames]:
    """Return a state dict under the names of the model, and how they were found."""
    shapes = [{name: value.shape for name, value in state.items()} for state in (state_dict, model.state_dict())]
    fitted = fit_names(shapes[0], shapes[1])
    return {fitted.names[name]: value for name, value in state_dict.items()}, fitted


def _repair_of_names(fitted: FittedNames) -> str:
    if fitted.rivals:
        return (
            f"They fit by more than one prefix: {', '.join(fitted.rivals)}. Save the weights under one of them alone."
        )
    return (
        "Fine-tuning needs the same arch section. Compare it with the checkpoint's config.json, or rename the weights."
    )


def load_all_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load weights that must all fit.

    Raises:
        CheckpointError: One is missing, left over, or of another shape.
    """
    own, (state_dict, fitted) = model.state_dict(), _with_fitted_names(model, state_dict)
    if fitted.change:
        logger.info("Weights: %s.", fitted.change)
    missing, unknown, other_shape = weight_differences(model, state_dict)
    faults = [f"{name} is missing" for name in missing]
    faults += [f"{name} is not in the network" for name in unknown]
    faults += [f"{name} is {tuple(state_dict[name].shape)}, not {tuple(own[name].shape)}" for name in other_shape]
    if faults:
        more = f" and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise CheckpointError(
            f"The weights do not fit the network of arch: {'; '.join(faults[:FAULTS_SHOWN])}{more}. A test needs the "
            "network that was trained. Leave changes of arch out, so that the checkpoint's config is used."
        )
    model.load_state_dict(state_dict)
