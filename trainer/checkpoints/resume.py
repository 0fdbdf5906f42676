"""Where a run begins: anew, where an earlier one stopped, or from another run's weights."""

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from base.base_trainer import BaseTrainer
from trainer.checkpoints.run_folder import differences, read_json, run_folders
from trainer.runtime.devices import unwrap
from utils.checkpoint_file import BEST, LAST, judged_weights, newest_good, read_saved
from utils.errors import CheckpointError, ConfigError


def weights_of(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The weights in a checkpoint of this project, of one with the same key, or in a bare state dict.

    Of a run with an average of its weights, the average: it is what validation has judged.

    Raises:
        CheckpointError: There are none.
    """
    state = judged_weights(content)
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"A checkpoint with the keys {', '.join(map(str, list(content)[:5]))} holds no weights. They are expected "
            'under "state_dict", or as the whole file. Name another file.'
        )
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_matching_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> list[str]:
    """Load the weights whose name and shape fit, for fine-tuning; what did not fit, a line each.

    Raises:
        CheckpointError: Nothing fits.
    """
    model = unwrap(model)
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in state_dict.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise CheckpointError(
            f"None of the checkpoint's {len(state_dict)} weights has the name and shape of one of the model's "
            f"{len(own)}. Fine-tuning needs the same arch section. Compare it with the checkpoint's config.json."
        )
    model.load_state_dict(fitting, strict=False)
    left_out = [f"{name}: not in the checkpoint, keeps its first values" for name in own if name not in state_dict]
    for name, tensor in state_dict.items():
        if name not in own:
            left_out.append(f"{name}: not in the model, not loaded")
        elif name not in fitting:
            left_out.append(
                f"{name}: {tuple(tensor.shape)} does not fit the model's {tuple(own[name].shape)}, not loaded"
            )
    return left_out


Config = dict[str, Any]
DIFFERENCES_SHOWN = 5
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        config: What to train.
        state: A checkpoint to go on from, exactly.
        folder: The run folder to go on in; None makes a new one.
        weights: A checkpoint whose weights to begin with, for fine-tuning.
        new_folder: The folder to make for a run that begins; None: a new one below `trainer.save_dir`.
        earlier: What the run was asked to do that this one goes on from, where only that run is named.
        asked: The config as it was before run-time values are filled in, to know an unchanged one again.
    """

    config: Config
    state: Config | None = None
    folder: Path | None = None
    weights: Config | None = None
    new_folder: Path | None = None
    earlier: Config | None = None
    asked: Config = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "asked", copy.deepcopy(self.config if self.earlier is None else self.earlier))


def resolve_start(config: Config | None, resume: str | None, new_folder: Path | None = None) -> Start:
    """Find out what `--resume` means beside, or without, a config.

    Args:
        config: The config of `-c`, resolved; None where only `resume` was given.
        resume: `auto`, `last`, `best`, a checkpoint, a run folder, or None.
        new_folder: The folder for a run that begins.

    Raises:
        CheckpointError: What is asked for is not there, is damaged, or belongs to another config.
    """
    if config is None:
        start = _go_on_from(Path(resume or ""))
    elif resume is None:
        start = Start(config)
    elif resume in ("auto", "last", "best"):
        start = _go_on_with(config, resume)
    else:
        start = Start(config, weights=read_saved(Path(resume))[1])
    return replace(start, new_folder=new_folder)


def restore(trainer: BaseTrainer, start: Start) -> None:
    """Put a trainer where a run begins: an earlier state, other weights, or nothing to do.

    Raises:
        CheckpointError: The state does not fit the model or optimizer of the config.
    """
    if start.state is not None:
        try:
            unwrap(trainer.model).load_state_dict(start.state["state_dict"])
            trainer.load_state_dict(start.state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"The checkpoint does not fit this config: {str(error).splitlines()[0]}. Going on needs the arch, "
                "optimizer and lr_scheduler that it was saved with. Use its own config, or fine-tune: -c with --resume."
            ) from error
        logger.info("Going on from epoch %d, step %d.", trainer.epoch + 1, trainer.batch)
    elif start.weights is not None:
        for line in load_matching_weights(trainer.model, weights_of(start.weights)):
            logger.warning("Fine-tuning: %s", line)


def run_to_judge(config: Config) -> Path:
    """The newest run folder of a config; where every run of its name had another config, the newest of these.

    Raises:
        CheckpointError: There is none.
    """
    every = run_folders(config["trainer"].get("save_dir", "saved/"), config["name"])
    folders = [folder for folder in every if any(folder.glob("*.pth"))]
    if not folders:
        raise CheckpointError(
            f'There is no run of "{config["name"]}" below {config["trainer"].get("save_dir", "saved/")}. '
            "--resume last and best go on from an earlier run. Leave --resume out, or name a checkpoint."
        )
    found = [differences(asked_config(folder), config) for folder in folders]
    if [] in found:
        return folders[found.index([])]
    logger.warning(
        "No run had this very config: %s, the newest, is used, which differs at %s.",
        folders[0],
        ", ".join(found[0][:DIFFERENCES_SHOWN]),
    )
    return folders[0]


def _go_on_from(path: Path) -> Start:
    """`--resume FILE` alone: the checkpoint's own config; in its own folder where it is the newest state."""
    folder = path if path.is_dir() else path.parent
    wanted = folder / LAST if path.is_dir() else path
    if not path.exists():
        raise CheckpointError(
            f"{path}: there is no such file. Name a checkpoint (.pth) or a run folder that holds one."
        )
    found, state = newest_good(folder, wanted)
    if "config" not in state:
        raise CheckpointError(f"{found}: holds no config to go on with. To begin with its weights, name one: -c FILE.")
    is_newest = wanted.name == LAST and (folder / "config.json").is_file()
    earlier = dict(asked_config(folder)) or None
    return Start(state["config"], state, folder if is_newest else None, earlier=earlier)


def _go_on_with(config: Config, resume: str) -> Start:
    """`-c` with `auto`, `last` or `best`: the newest run of the same config."""
    other: list[str] = []
    for folder in run_folders(config["trainer"].get("save_dir", "saved/"), config["name"]):
        if not any(folder.glob("*.pth")):
            continue
        found = differences(asked_config(folder), config)
        if found:
            other = other or [f"{folder} differs at {', '.join(found[:DIFFERENCES_SHOWN])}"]
            continue
        _, state = newest_good(folder, folder / (BEST if resume == "best" else LAST))
        return Start(config, state, None if resume == "best" else folder)
    reason = other[0] if other else "there is none"
    if resume == "auto":
        logger.info('No earlier run of "%s" to go on from (%s): starting a new one.', config["name"], reason)
        return Start(config)
    raise CheckpointError(
        f'There is no run of "{config["name"]}" with this config to go on from: {reason}. --resume {resume} goes on '
        "with an unchanged config. Undo the change, or fine-tune with --resume FILE."
    )


def asked_config(folder: Path) -> Mapping[str, Any]:
    """What a run was asked to do, before run-time values were filled in."""
    content = read_json(folder / "environment.json") or {}
    config: Mapping[str, Any] = content.get("asked", {})
    return config


EARLIER_RUN = ("best", "last")
FAULTS_SHOWN = 3


def find_checkpoint(resume: str, asked: Mapping[str, Any] | None) -> tuple[Path, dict[str, Any]]:
    """The checkpoint that `--resume` of a test names.

    Args:
        resume: A checkpoint, a run folder (its best one), or `best` or `last` of the newest run of `asked`.
        asked: The config of `-c`.

    Returns:
        The file and its content.

    Raises:
        CheckpointError: It is missing or damaged.
        ConfigError: `best` or `last` without a config.
    """
    path = Path(resume)
    if resume in EARLIER_RUN:
        if asked is None:
            raise ConfigError(f"--resume {resume}: it must be known of which runs. Add -c FILE, or name a checkpoint.")
        path = run_to_judge({"trainer": {}, **asked})
    return newest_good(path) if resume == "last" else read_saved(path)


def load_all_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load weights that must all fit.

    Raises:
        CheckpointError: One is missing, left over, or of another shape.
    """
    own = model.state_dict()
    faults = [f"{name} is missing" for name in own if name not in state_dict]
    faults += [f"{name} is not in the network" for name in state_dict if name not in own]
    faults += [
        f"{name} is {tuple(tensor.shape)}, not {tuple(own[name].shape)}"
        for name, tensor in state_dict.items()
        if name in own and own[name].shape != tensor.shape
    ]
    if faults:
        more = f" and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise CheckpointError(
            f"The weights do not fit the network of arch: {'; '.join(faults[:FAULTS_SHOWN])}{more}. A test needs the "
            "very network that was trained. Leave changes of arch out, so that the checkpoint's own config is used."
        )
    model.load_state_dict(state_dict)
