"""The space of a grid study: each candidate is a condition with a seed, and in a fold of the data."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from config.checking.sections import MAX_SEED, GridOptions
from config.faults import Faults, show
from config.loading.load import apply_changes
from config.markers import find_markers
from search.space.drawn import Drawn, read_choices
from search.space.space import Space
from utils.errors import ConfigError, SearchError

CONDITION, SEED, FOLD = "condition", "seed", "fold"
_OF_THE_STUDY = ("executor", "resources", "max_epoch_time")  # keys that a condition which is a search does not have


@dataclass(frozen=True)
class GridPlace:
    """A place in a grid.

    Attributes:
        condition: Number of the condition, from 0.
        repeat: Number of the seed, from 0.
        fold: Number of the fold that is held out, from 0; None without folds.
    """

    condition: int
    repeat: int
    fold: int | None


def condition_path(name: str) -> str:
    """Return the JSON path of a condition."""
    return f"search.study.conditions.{name}"


class GridSpace(Space):
    """The space of a grid study.

    Candidates are numbered seed by seed, the folds of a condition one after the other, so that more seeds append some,
    and a study that ends early has whole seeds. A condition with markers, or a strategy of its own, is a search: its
    config is a space.

    Args:
        config: From `load_config`.
        grid: Its `search.study`.

    Raises:
        ConfigError: A condition changes a setting that all share, or its path leads nowhere; all are listed.
    """

    def __init__(self, config: Mapping[str, Any], grid: GridOptions) -> None:
        first_seed = int(config.get("seed", 0))
        super().__init__({"name": config.get("name")}, study_seed=first_seed)  # each condition is a space of its own
        self.has_markers = True  # candidates differ in more than their seeds
        self.conditions = list(grid.conditions)
        self.folds = grid.folds
        self.first_seed = first_seed
        search = {key: value for key, value in config.get("search", {}).items() if key != "study"}
        faults, configs = Faults(), []
        for name, changes in grid.conditions.items():
            with faults.collecting():
                configs.append(self._condition({**config, "search": search}, name, changes))
        if first_seed + grid.seeds - 1 > MAX_SEED:
            faults.add(
                "seed", f"{first_seed}, and {grid.seeds} seeds from there: the last is above {MAX_SEED}. Lower it."
            )
        if faults:
            raise faults.error()
        self._configs = configs

    def _condition(self, config: Mapping[str, Any], name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config of a condition; that of a search has `search`, with one worker, and its definitions.

        Raises:
            ConfigError: A path leads nowhere, or it cannot be trained.
        """
        place = condition_path(name)
        try:
            changed = apply_changes(config, changes)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from error
        if changed.get("seed", 0) != self.first_seed:
            raise ConfigError(f"{place}: seed {show(changed['seed'])}: all conditions have the same seeds. Remove it.")
        trainer, search, definitions = changed.get("trainer"), changed.pop("search", None), changed.pop("$defs", None)
        if not isinstance(search, Mapping):
            raise ConfigError(f"{place}: search: {show(search)}, and a condition cannot remove it. Leave it out.")
        epochs = trainer.get("epochs") if isinstance(trainer, Mapping) else None
        if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
            raise ConfigError(
                f"{place}: trainer.epochs: {show(epochs)} must be an integer >= 1. Write a number of epochs."
            )
        has_strategy = search.get("strategy") != config["search"].get("strategy")  # such as one that needs no markers
        if find_markers(changed) or has_strategy:
            if self.folds:
                reason = "search.strategy" if has_strategy else "markers"
                raise ConfigError(f"{place}: a search, as it has {reason}, and folds are for trainings. Remove folds.")
            search = {key: value for key, value in search.items() if key not in _OF_THE_STUDY}
            return {**changed, **({} if definitions is None else {"$defs": definitions}), "search": search}
        if search != config["search"]:
            raise ConfigError(
                f"{place}: search: changed, and a condition without markers is no search. Change another section."
            )
        return changed

    def is_search(self, drawn: Drawn) -> bool:
        """Return whether a candidate is a search."""
        return "search" in self._configs[self.place(drawn).condition]

    @property
    def searches(self) -> dict[str, dict[str, Any]]:
        """The configs of the conditions that are searches."""
        return {name: each for name, each in zip(self.conditions, self._configs, strict=True) if "search" in each}

    @property
    def configs(self) -> dict[str, dict[str, Any]]:
        """The config of each condition, without its seed and fold."""
        return dict(zip(self.conditions, self._configs, strict=True))

    @property
    def candidates_per_seed(self) -> int:
        """Number of candidates with the same seed."""
        return len(self.conditions) * (self.folds or 1)

    @property
    def max_epochs(self) -> int:
        """Epochs of the longest training; a search reports once."""
        return max(1 if "search" in config else int(config["trainer"]["epochs"]) for config in self._configs)

    def place(self, drawn: Drawn) -> GridPlace:
        """Return the place of a candidate.

        Raises:
            SearchError: There is none.
        """
        found = dict(drawn.choices)
        names = [CONDITION, SEED, *([FOLD] if self.folds else [])]
        limits = {CONDITION: len(self.conditions), SEED: math.inf, FOLD: self.folds or 1}
        if [name for name, _ in drawn.choices] != names or not all(0 <= found[name] < limits[name] for name in names):
            raise SearchError(
                f"{show(drawn.as_json())}: no candidate of this study, which has {len(self.conditions)} conditions"
                f"{f' and {self.folds} folds' if self.folds else ''}. Use the config that the study was begun with."
            )
        return GridPlace(int(found[CONDITION]), int(found[SEED]), int(found[FOLD]) if self.folds else None)

    def random(self, number: int) -> Drawn:
        """Return the candidate of a number; nothing is random."""
        repeat, rest = divmod(number, self.candidates_per_seed)
        condition, fold = divmod(rest, self.folds or 1)
        return Drawn(((CONDITION, condition), (SEED, repeat), *([(FOLD, fold)] if self.folds else [])))

    def read(self, choices: Sequence[Sequence[Any]]) -> Drawn:
        """Return the candidate that a journal holds.

        Raises:
            SearchError: It is none of this study.
        """
        drawn = read_choices(choices)
        self.place(drawn)
        return drawn

    def find(self, overrides: Mapping[str, Any], number: int = 0, *, prefix: str = "") -> NoReturn:
        """Refuse a candidate of the user.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"{', '.join(overrides)}: a grid study trains its conditions and no other candidates. Start a new study "
            "with one more condition."
        )

    def config(self, drawn: Drawn) -> dict[str, Any]:
        """Return the config of a candidate; its seed is that of the space, see `seed`."""
        place = self.place(drawn)
        config = self._configs[place.condition]
        return config if place.fold is None else with_fold(config, place.fold, self.folds or 1)

    def seed(self, number: int) -> int:
        """Return the seed of a candidate's training: equal for all conditions and folds."""
        return self.first_seed + number // self.candidates_per_seed

    def key(self, drawn: Drawn) -> str:
        """Return text that is different for all candidates: two conditions may well train the same."""
        return "/".join(str(number) for _, number in drawn.choices)

    def label(self, drawn: Drawn) -> list[tuple[str, Any]]:
        """Return the name of the condition, the seed of the training, and the number of the fold."""
        place = self.place(drawn)
        label: list[tuple[str, Any]] = [(CONDITION, self.conditions[place.condition])]
        label.append((SEED, self.first_seed + place.repeat))
        return label if place.fold is None else [*label, (FOLD, place.fold)]

    def distinct(self) -> float:
        """Return infinity: there may always be another seed."""
        return math.inf

    def describe(self) -> str:
        """Return the size in words."""
        folds = f", {self.folds} folds each" if self.folds else ""
        return f"{len(self.conditions)} conditions{folds}: {self.candidates_per_seed} trainings per seed."

    def find_faults(self, check: Callable[[Mapping[str, Any]], Any]) -> list[str]:
        """Check the config of each condition that is a training; the others are spaces, see `searches`.

        Args:
            check: Raises a `ConfigError` for a config that cannot be trained.

        Raises:
            ConfigError: Some conditions are faulty; all are listed.
        """
        faults = Faults()
        for name, config in self.configs.items():
            if name in self.searches:
                continue
            try:
                check({**(with_fold(config, 0, self.folds) if self.folds else config), "seed": self.first_seed})
            except ConfigError as error:
                for each in error.parts or [error]:
                    faults.add(condition_path(name), str(each))
        if faults:
            raise faults.error()
        return []


def with_fold(config: Mapping[str, Any], fold: int, num_folds: int, seed: int | None = None) -> dict[str, Any]:
    """Return a config whose training data is divided into folds, one of which is the validation data.

    Args:
        config: With a `train_loader` or a `data_loader`, which is then the `data_loader`; a `valid_loader` is left out.
        fold: Number of the fold that is held out, from 0.
        num_folds: Number of folds.
        seed: Of the partition; None: it follows from the seed of the training, so that it is the same for all
            conditions of a grid.
    """
    loader = config.get("train_loader") or config.get("data_loader")
    loader = dict(loader) if isinstance(loader, Mapping) else {"type": loader}
    args = {key: value for key, value in (loader.get("args") or {}).items() if key != "validation_split"}
    chosen = {"fold": fold, "of": num_folds} | ({} if seed is None else {"seed": seed})
    loader["args"] = {**args, "folds": chosen}
    others = {key: value for key, value in config.items() if key not in ("train_loader", "valid_loader")}
    return {**others, "data_loader": loader}
