"""The checkpoints in the folder of a run: their names, and the newest one that is whole."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.checkpoint_file import read_checkpoint
from utils.errors import CheckpointError

LAST, BEST = "checkpoint-last.pth", "model_best.pth"
logger = logging.getLogger(__name__)


def newest_good(folder: Path, first: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint of a run folder that is whole; damaged ones are named in warnings.

    Args:
        folder: A run folder.
        first: Try this one before the others; by default `checkpoint-last.pth`.

    Raises:
        CheckpointError: There is none.
    """
    wanted = first or folder / LAST
    try:
        return wanted, read_checkpoint(wanted)
    except CheckpointError as error:
        problem = str(error)
    logger.warning("%s", problem)
    good: list[tuple[int, Path, dict[str, Any]]] = []
    for path in sorted(folder.glob("*.pth")):
        if path == wanted:
            continue
        try:
            content = read_checkpoint(path)
            good.append((content["global_step"], path, content))
        except (CheckpointError, KeyError) as error:
            logger.warning("%s", error)
    if not good:
        raise CheckpointError(f"{problem} No other checkpoint in {folder} is good.")
    _, path, content = max(good, key=lambda item: item[0])
    logger.warning("Going on from %s, the newest good checkpoint there.", path)
    return path, content


def read_saved(path: Path) -> tuple[Path, dict[str, Any]]:
    """A checkpoint and its content; of a run folder the best one, or the newest good one where that is damaged.

    Raises:
        CheckpointError: It is missing or damaged, or the folder holds no good one.
    """
    if not path.is_dir():
        return path, read_checkpoint(path)
    return newest_good(path, path / BEST if (path / BEST).exists() else None)


def judged_weights(content: Mapping[str, Any]) -> Any:
    """The weights of a checkpoint that its validation has judged: the average of a run that kept one, else its own.

    A file without the keys of a checkpoint is taken for a bare state dict.
    """
    average = content.get("ema")
    return average["state_dict"] if isinstance(average, Mapping) else content.get("state_dict", content)
