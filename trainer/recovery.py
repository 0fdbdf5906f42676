"""Finding and reading what was saved: the newest good state of a run, and weights to begin with."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trainer.checkpoint import BEST, LAST
from trainer.distributed import unwrap
from utils.checkpoint_file import read_checkpoint
from utils.errors import CheckpointError

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


def read_named(path: Path) -> dict[str, Any]:
    """The checkpoint at a path, or the best (else the newest good) one of a run folder.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    if path.is_dir():
        best = path / BEST
        return newest_good(path, best if best.exists() else None)[1]
    return read_checkpoint(path)


def weights_of(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The weights in a checkpoint of this project, of one with the same key, or in a bare state dict.

    Raises:
        CheckpointError: There are none.
    """
    state = content.get("state_dict", content)
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
