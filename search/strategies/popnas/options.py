"""The settings of a progressive search, and the settings of a study that contradict them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from config.faults import show
from search.study.settings import StudyParts
from utils.registry import OptionGroup

ARGUMENTS = "search.strategy.args"
CELL = "arch.args.cell"
OPERATORS = ("identity", "3x3 dconv", "5x5 dconv", "3x3 conv", "1x7-7x1 conv", "3x3 maxpool", "3x3 avgpool")
SERIES_OPERATORS = ("identity", "7 dconv", "5 conv", "3 conv", "3 maxpool", "3 avgpool", "gru")
Acquisition = Literal["mean", "ei", "ucb"]
Predictor = Literal["auto", "graph", "features", "trivial"]
TableGrammar = Literal["nasbench201", "nasbench201_blocks"]


@dataclass(frozen=True)
class GrowthOptions(OptionGroup):
    """The cells that can grow, and how many of them are trained."""

    blocks: Annotated[int, Field(ge=1, le=12, description="Blocks of the largest cells.")] = 5
    lookbacks: Annotated[int, Field(ge=1, le=8, description="Earlier cells whose output a block may take.")] = 2
    operators: Annotated[
        list[str] | None, Field(min_length=1, description="Operations of a block; `null`: seven for the data.")
    ] = None
    grammar: Annotated[
        TableGrammar | None, Field(description="The cells of a table, instead of blocks, lookbacks and operators.")
    ] = None
    max_first: Annotated[int | None, Field(ge=1, description="Cells of one block to train; `null`: all there are.")] = (
        None
    )
    max_children: Annotated[int, Field(ge=1, description="Cells of each later generation to train.")] = 128
    max_best: Annotated[
        int | None,
        Field(
            ge=0,
            description="Further ones with the best predicted scores, whatever their costs; `null`: as many as the "
            "front leaves of `max_children`.",
        ),
    ] = None
    max_exploration: Annotated[
        int, Field(ge=0, description="Further ones, with operations and inputs that are used too little.")
    ] = 16
    rounds: Annotated[
        int, Field(ge=1, description="Times that cells of the last generation are chosen, by new predictors each.")
    ] = 1
    pnas_mode: Annotated[bool, Field(description="Choose by the predicted score alone; explore nothing.")] = False

    @property
    def num_explored(self) -> int:
        """Cells of a generation that are chosen to explore, at most."""
        return 0 if self.pnas_mode else self.max_exploration


@dataclass(frozen=True)
class PredictionOptions(OptionGroup):
    """How cells that were not trained are compared."""

    predictor: Annotated[
        Predictor, Field(description="Of the score: the better one of two, a graph network, features, or the parents.")
    ] = "auto"
    members: Annotated[
        int, Field(ge=2, le=20, description="Graph networks that predict together, and folds of the predictors.")
    ] = 5
    acquisition: Annotated[
        Acquisition, Field(description="Merit by a predicted score: mean, expected improvement, or confidence bound.")
    ] = "mean"


def growth_faults(parts: StudyParts, growth: GrowthOptions) -> Iterator[str]:
    """Yield the settings of a study that contradict a progressive search."""
    search = parts.config.get("search", {})
    for key in ("sampler", "first", "warm_start"):
        if search.get(key):
            yield f"search.{key}: {show(search[key])}, and POPNAS chooses the cells itself. Remove it."
    for site in () if growth.grammar is not None else parts.space.sites:
        yield f"{site.path}: {show(site.marker)}, and POPNAS searches the cell alone. Write a value."
    score = parts.objectives[0]
    if score.is_cost:
        yield (
            f"search.objectives: {show([str(each) for each in parts.objectives])}: the first one is the score of a "
            'cell, a result of its training. Write for example ["max val_accuracy", "min params"].'
        )
    if len(parts.objectives) == 1 and not growth.pnas_mode:
        yield (
            f"search.objectives: {show([str(score)])}: a front needs a second objective. Add one, for example "
            f'"min training_time" or "min params", or set {ARGUMENTS}.pnas_mode to true to choose by the score alone.'
        )
    for key in ("blocks", "lookbacks", "operators"):
        args = _arguments(search)
        if growth.grammar is not None and key in args:
            yield (
                f"{ARGUMENTS}.{key}: {show(args[key])}, and the grammar {show(growth.grammar)} says which cells there "
                "are. Remove one of both."
            )


def _arguments(search: Mapping[str, Any]) -> Mapping[str, Any]:
    strategy = search.get("strategy")
    args = strategy.get("args") if isinstance(strategy, Mapping) else None
    return args if isinstance(args, Mapping) else {}


def network_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the settings of the network that name a cell, and so leave no place for the searched one."""
    arch = config.get("arch")
    args = arch.get("args") if isinstance(arch, Mapping) else None
    if isinstance(args, Mapping) and args.get("cell") is not None:
        yield f"{CELL}: {show(args['cell'])}, and the cell is what the search finds. Remove it."
