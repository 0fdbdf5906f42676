"""The architecture that a supernet learns: its parameters, their entropy, and how they are recorded epoch by epoch.

alpha: (E, 8) logits of the operations on the edges of a cell. beta: (L, 4, 3) logits of the moves between the levels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from base.base_trainer import BaseTrainer, Row
from base.callback import Callback
from utils.architecture.course import course_text
from utils.architecture.decoding import alpha_weights, beta_weights, possible_moves
from utils.architecture.genotype import OPERATIONS, STRIDES, Genotype, cell_edges, input_names
from utils.drawing import Image, draw_heat_map
from utils.errors import ConfigError, TrainingError
from utils.files import write_text_atomically
from utils.registry import OptionGroup

ARCHITECTURE_FILE = "architecture.json"
Entry = dict[str, Any]
"""The architecture after an epoch: `{"epoch": 1, "steps": 0, "alpha": [[...]], "beta": [[[...]]], "genotype": {...}}`.

Alpha and beta are logits; `steps` counts those that have trained them. A supernet that weighs its edges has
`"edges": [...]`, too.
"""
_MOVES = ("finer", "same", "coarser")
_IMPOSSIBLE = -1e9  # a logit whose weight is 0, and whose gradient is a number


@runtime_checkable
class Supernet(Protocol):
    """A network that contains many, mixed by architecture parameters.

    Attributes:
        alpha: (E, 8) logits.
        beta: (L, 4, 3) logits.
    """

    alpha: nn.Parameter
    beta: nn.Parameter

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that are no weights: alpha, beta and, if it weighs its edges, `edges` (E,)."""

    def architecture(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return alpha and beta as arrays."""

    def decode(self) -> Genotype:
        """Return the genotype that they prefer."""


@dataclass(frozen=True)
class ArchitectureOptions(OptionGroup):
    """How the architecture learns; the defaults are those of Auto-DeepLab (arXiv:1901.02985, section 4.1)."""

    architecture_from_epoch: Annotated[
        int | None,
        Field(
            ge=1,
            description="First epoch, counted from 1, in which the architecture learns; `null`: after half of them.",
        ),
    ] = None
    architecture_lr: Annotated[float, Field(gt=0, description="Learning rate of Adam for alpha and beta.")] = 3e-3
    architecture_betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]],
        Field(description="Decays of Adam's averages."),
    ] = (0.9, 0.999)
    architecture_weight_decay: Annotated[float, Field(ge=0, description="L2 penalty of alpha and beta.")] = 1e-3
    entropy_weight: Annotated[
        float, Field(ge=0, description="Factor of the entropy in the loss of the architecture; 0: not in it.")
    ] = 0.0
    entropy_growth: Annotated[
        Literal["constant", "linear"],
        Field(description="`linear`: the factor grows from epoch to epoch and is full in the last one."),
    ] = "constant"
    stable_epochs: Annotated[
        int | None,
        Field(ge=1, description="End when the genotype was the same for so many more epochs; `null`: never."),
    ] = None


def require_supernet(model: nn.Module) -> Supernet:
    """Return the network of a bilevel training.

    Raises:
        ConfigError: It has no architecture to learn.
    """
    if isinstance(model, Supernet):
        return model
    raise ConfigError(
        f"arch: {type(model).__name__} has no architecture_parameters(), and BilevelTrainer learns an architecture in "
        'addition to weights. Name a supernet, such as "AutoDeepLabSupernet", or set trainer.type to "Trainer".'
    )


@cache
def _moves(layers: int, device: torch.device) -> tuple[Tensor, float]:
    """Return the moves that are possible, (L, 4, 3) bool, and the largest entropy of beta; computed once."""
    moves = torch.from_numpy(possible_moves(layers))
    choices = moves.sum(dim=-1).clamp(min=1)
    return moves.to(device), float(choices.double().log().sum())


def entropy_share(alpha: Tensor, beta: Tensor) -> Tensor:
    """Return the mean of the entropies of alpha and beta, each as a share of its largest: 1 undecided, 0 decided.

    Args:
        alpha: (E, 8) float.
        beta: (L, 4, 3) float; moves that are not possible do not count.

    Returns:
        () float, differentiable.
    """
    moves, largest_of_beta = _moves(len(beta), beta.device)
    shares = []
    for logits, possible, largest in (
        (alpha, torch.ones_like(alpha, dtype=torch.bool), len(alpha) * math.log(alpha.shape[-1])),
        (beta, moves, largest_of_beta),
    ):
        log_weights = logits.where(possible, _IMPOSSIBLE).clamp(min=_IMPOSSIBLE).log_softmax(dim=-1)
        shares.append(-(log_weights.exp() * log_weights * possible).sum() / largest)
    return torch.stack(shares).mean()


def entry_of(network: Supernet, epoch: int, steps: int) -> Entry:
    """Return the record of the present architecture after an epoch, counted from 1, and after steps, as plain data."""
    alpha, beta = (np.asarray(each).tolist() for each in network.architecture())
    entry = {"epoch": epoch, "steps": steps, "alpha": alpha, "beta": beta, "genotype": network.decode().to_json()}
    edges = getattr(network, "edges", None)
    return entry if edges is None else entry | {"edges": edges.tolist()}


def epochs_unchanged(entries: Sequence[Entry], first_epoch: int) -> int:
    """Return for how many epochs after `first_epoch` the last genotype has been the same as in the epoch before."""
    learned = [entry["genotype"] for entry in entries if entry["epoch"] >= first_epoch]
    count = 0
    while count + 1 < len(learned) and learned[-count - 2] == learned[-1]:
        count += 1
    return count


class ArchitectureFile(Callback):
    """Writer of architecture.json: alpha, beta and genotype of every epoch, so that it agrees with the checkpoint."""

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        """Write the epochs of a resumed run, without those that are repeated."""
        if trainer.epoch:
            self.on_epoch_end(trainer, {})

    def on_epoch_end(self, trainer: BaseTrainer, metrics: Row) -> None:
        """Write the file anew, a line per epoch; a reader sees the old one or the new one.

        Raises:
            TrainingError: The file cannot be written.
        """
        if not trainer.is_main_process or trainer.run_folder is None:
            return
        entries = [entry for entry in getattr(trainer, "architectures", ()) if entry["epoch"] <= trainer.epoch]
        path = trainer.run_folder / ARCHITECTURE_FILE
        try:
            write_text_atomically(path, course_text(entries))
        except OSError as error:
            raise TrainingError(
                f"{path}: not written ({error.strerror}). The run folder must be writable during the run. Free some "
                "space or correct the permissions, then run the same command with --resume auto."
            ) from error


def architecture_notes(entry: Entry) -> Mapping[str, str | Image]:
    """Return an entry for the logs: heat maps of alpha and beta with the genotype framed, and the genotype as text."""
    genotype = Genotype.from_json(entry["genotype"])
    return {
        "architecture/alpha": _draw_alpha(np.array(entry["alpha"]), genotype, entry["epoch"]),
        "architecture/beta": _draw_beta(np.array(entry["beta"]), genotype, entry["epoch"]),
        "architecture/genotype": _genotype_text(genotype),
    }


def _draw_alpha(alpha: NDArray[Any], genotype: Genotype, epoch: int) -> Image:
    names = input_names(genotype.num_blocks)
    edges = cell_edges(genotype.num_blocks)
    rows = [f"{names[place]} to block_{block + 1}" for block, place in edges]
    chosen = [dict(block) for block in genotype.blocks]
    marked = {
        (row, OPERATIONS.index(chosen[block][names[place]]))
        for row, (block, place) in enumerate(edges)
        if names[place] in chosen[block]
    }
    ends = [row for row, (block, _) in enumerate(edges[:-1]) if edges[row + 1][0] != block]
    title = f"Operations of the edges after epoch {epoch}"
    return draw_heat_map(alpha_weights(alpha), rows, OPERATIONS, title, marked=marked, lines_after=ends)


def _draw_beta(beta: NDArray[Any], genotype: Genotype, epoch: int) -> Image:
    layers, kinds = len(beta), len(_MOVES)
    weights = np.where(possible_moves(layers), beta_weights(beta), np.nan)
    shares = weights.transpose(1, 2, 0).reshape(len(STRIDES) * kinds, layers)
    rows = [f"stride {stride}, {move}" for stride in STRIDES for move in _MOVES]
    path = (0, *genotype.levels)
    marked = {(source * kinds + target - source + 1, layer) for layer, (source, target) in enumerate(pairwise(path))}
    columns = [f"layer {layer + 1}" for layer in range(layers)]
    ends = range(kinds - 1, len(rows) - 1, kinds)
    title = f"Moves into each layer after epoch {epoch}"
    return draw_heat_map(shares, rows, columns, title, marked=marked, lines_after=ends)


def _genotype_text(genotype: Genotype) -> str:
    """Return a genotype as Markdown: its strides, and its blocks in a table."""
    lines = [f"Strides: {' - '.join(map(str, genotype.strides))}", "", "| block | input | operation |", "|---|---|---|"]
    for number, block in enumerate(genotype.blocks, start=1):
        lines += [f"| {number} | {name} | {operation} |" for name, operation in block]
    return "\n".join(lines)
