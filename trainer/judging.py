"""What a test begins with: the checkpoint that is meant, and its weights in a network, all of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trainer.resume import run_to_judge
from utils.errors import CheckpointError, ConfigError
from utils.saved_runs import newest_good, read_saved

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
