"""Auto-DeepLab: supernets are trained, their architecture is decoded, and the decoded network is trained and tested."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

from config.checking.sound import place_of
from config.faults import Faults, show
from config.loading.load import deep_merge
from config.variants import shorten_schedule
from search.executors.base import Task
from search.results.architecture import ARCHITECTURES, course_sections, path_text, read_course
from search.results.importance import is_number
from search.results.leaderboard import is_ranked
from search.space.cover import Check, faults_of
from search.space.outcomes import plain_json
from search.space.space import Space
from search.space.walk import Site
from search.strategies.base import Outcome
from search.strategies.multi_fidelity import MultiFidelity, candidate_folder
from search.strategies.supernet import (
    ANY_GENOTYPE,
    OVERLAY,
    contradictions,
    laid_over,
    overlay_faults,
    place_in_study,
    unreachable_markers,
    without_search,
)
from search.study.folders import run_folder
from search.study.journal import Event
from search.study.settings import StudyParts
from utils.architecture.course import default_learning_epoch
from utils.architecture.genotype import Genotype
from utils.errors import SearchError

DECODE = "decode"


class SupernetSearch(MultiFidelity):
    """A search by differentiable supernets (Liu et al. 2019, https://arxiv.org/abs/1901.02985).

    The candidates are supernets, trained by the config of the study with `supernet` laid over it; without markers they
    differ in their seeds. When the search is over, the architecture of each is decoded (stage "decode") and recorded in
    the journal. Supernets with equal genotypes are one. The best, by their results after the epoch of which they are
    decoded, are trained again by the config of the study with the genotype as `arch.args.genotype`: the result is one
    of these networks, never a supernet. A candidate is decoded once, at its end, also if a scheduler of a grown study
    continues its training later. One that ended before its architecture learned is not decoded: its genotype is random.

    Args:
        parts: The parts of the study.
        supernet: Settings laid over the config of the study, as a file is over the one that it extends: `arch`,
            `trainer`, `optimizer`, ....
        decode_epoch: Epoch after which a supernet is decoded; None: its last one.
        stage: Name of the stage that trains supernets.
    """

    result_is_retrained = True
    trains_in_folds = False

    def __init__(
        self, parts: StudyParts, *, supernet: dict[str, Any], decode_epoch: int | None = None, stage: str = "search"
    ) -> None:
        super().__init__(parts, stage=stage)
        self.supernet = supernet
        self.decode_epoch = decode_epoch
        self.stages = (stage, DECODE)
        self.final = Space(without_search(parts.config))
        self._genotypes: dict[int, dict[str, Any]] = {}
        self._epochs: dict[int, int] = {}  # at which they were decoded
        self._untrained: dict[int, int] = {}  # last epochs of those whose architecture has not learned
        self._results: dict[int, dict[str, Any]] = {}  # of that epoch: an earlier best one had another genotype

    @classmethod
    def searched_config(cls, config: Mapping[str, Any], args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the config of the supernets.

        Raises:
            ConfigError: There is nothing to lay over the config of the study, or it makes no supernet of it.
        """
        faults = Faults(overlay_faults(config, args.get("supernet")))
        if faults:
            raise faults.error()
        return laid_over(config, args["supernet"])

    @classmethod
    def shrunk_arguments(cls, args: Mapping[str, Any], epochs: int) -> dict[str, Any]:
        """Return the arguments for supernets of fewer epochs, whose architecture is trained in the later half."""
        if not isinstance(args.get("supernet"), Mapping):
            return dict(args)
        # Laid over as null they would be faults: settings of a test run for all loaders hold for the supernet, too.
        changed: dict[str, Any] = copy.deepcopy(dict(args))
        shorten_schedule(changed["supernet"].get("lr_scheduler"))
        trainer = changed["supernet"].setdefault("trainer", {})
        if isinstance(trainer, dict):
            trainer["epochs"] = epochs
            inner = trainer.get("args")
            if isinstance(inner, dict) and isinstance(inner.get("architecture_from_epoch"), int):
                first = min(inner["architecture_from_epoch"], default_learning_epoch(epochs))
                inner["architecture_from_epoch"] = first
        for name, loader in changed["supernet"].items():
            if name.endswith("loader") and isinstance(loader, dict) and isinstance(loader.get("args"), dict):
                loader["args"].pop("samples", None)
        if isinstance(changed.get("decode_epoch"), int):
            changed["decode_epoch"] = min(changed["decode_epoch"], epochs)
        return changed

    def find_faults(self, space: Space, check: Check) -> list[str]:
        """Return the faults of some supernets, each once.

        Raises:
            ConfigError: Lists all faults: no supernet or not every final network can be trained, or the settings
                contradict each other.
        """
        faults, warnings = Faults(contradictions(self.parts, space, self.supernet, self.decode_epoch)), list[str]()
        for place in unreachable_markers(self.final, space):
            faults.add(place, "the supernet replaces this marker, so that no candidate draws it. Write a value.")
        for each in self.final.covering():
            config = with_genotype(each.config, ANY_GENOTYPE)
            for message in faults_of(config, check):
                faults.add("", _about_genotype(message, config))
        if space.has_markers:
            with faults.collecting():
                warnings = space.find_faults(check)
        else:
            for message in faults_of(next(space.covering()).config, check):
                place = place_of(message)
                faults.add("", place_in_study(place, self.supernet, self.parts.config) + message.removeprefix(place))
        if faults:
            raise faults.error()
        return warnings

    def apply(self, event: Event) -> None:
        """Note the genotypes, too."""
        super().apply(event)
        if event.stage == DECODE and event.kind == "decoded" and event.candidate is not None:
            self._genotypes[event.candidate] = event.data["genotype"]
            self._epochs[event.candidate] = event.data["epoch"]
            self._results[event.candidate] = event.data.get("results", {})
        if event.stage == DECODE and event.kind == "untrained" and event.candidate is not None:
            self._untrained[event.candidate] = event.data["epoch"]

    def next(self, idle: int) -> Sequence[Task]:
        """Return the tasks of the next supernets; when all are done, decode them."""
        tasks = super().next(idle)
        if not tasks and super().is_done:
            for candidate in self._undecoded():
                self._decode(candidate)
        return tasks

    @property
    def is_done(self) -> bool:
        """Whether no supernet is to be trained or decoded."""
        return super().is_done and not self._undecoded()

    def _undecoded(self) -> list[int]:
        """Return the supernets with results that are at their end and not decoded."""
        candidates = self.state.candidates.items()
        ranked = (index for index, each in candidates if is_ranked(each.record, self.parts.objectives))
        # With a spent budget the training of some is not at its end, and continues with a larger one.
        ended = (index for index in ranked if index not in self.state.jobs and not self.may_resume(index))
        return [index for index in ended if index not in self._genotypes and index not in self._untrained]

    def _decode(self, candidate: int) -> None:
        """Record the genotype of a supernet, or that it has none but a random one."""
        record = self.state.candidates[candidate].record
        last = min(self.decode_epoch or record.epochs, record.epochs)
        folder = run_folder(self.study.folder, candidate_folder(candidate))
        course = {each.epoch: each for each in read_course(folder / ARCHITECTURES, restores=True)}
        if last not in course:
            raise SearchError(
                f"{folder / ARCHITECTURES}: it has no epoch {last}, after which candidate {candidate} is decoded. Put "
                "back a copy of the file, and continue with --resume auto."
            )
        if course[last].is_untrained:
            self.study.record(f"{DECODE}.untrained", candidate, epoch=last)
            return
        genotype = course[last].decode()
        row, parts = record.reports[last - 1], self.parts
        names = [*(goal.name for goal in parts.objectives), *(each.name for each in parts.constraints)]
        results = {name: row[name] for name in names if is_number(row.get(name))}
        self.study.record(f"{DECODE}.decoded", candidate, epoch=last, genotype=genotype.to_json(), results=results)

    def ended(self, task: Task, outcome: Outcome) -> None:
        """Record the end of a supernet; one that does not fit is no reason to draw another seed."""
        super().ended(task, outcome)
        if outcome.status in ("refused", "out_of_memory") and not self.parts.space.has_markers:
            raise SearchError(
                f"{self.study.folder}: the supernet cannot be trained: {outcome.reason.rstrip('.')}. Its size is set "
                "in search.strategy.args.supernet: fewer layers, blocks or a lower filter_multiplier in arch.args, a "
                "smaller crop or batch_size in train_loader.args."
            )

    def finalists(self) -> list[int]:
        """Return the candidates whose final networks differ, the best supernet first.

        Raises:
            SearchError: None is decoded.
        """
        found: dict[str, int] = {}
        for candidate in sorted(self.study.ranked(), key=self._score, reverse=True):
            config = self.config_of(candidate)
            if config is not None:
                found.setdefault(plain_json(config), candidate)
        if not found and self._untrained:
            ends = ", ".join(f"{each} after epoch {epoch}" for each, epoch in sorted(self._untrained.items()))
            raise SearchError(
                f"{self.study.folder}: no supernet is decoded. These have ended before their architecture learned, so "
                f"that their genotypes are random: candidate {ends}. Set a lower {OVERLAY}.trainer.args."
                f"architecture_from_epoch, or leave out what ended them, and begin a new search. A random network for "
                'comparison is arch.args.genotype "random:17", without a search.'
            )
        if not found:
            raise SearchError(
                f"{self.study.folder}: no supernet was trained to its end ({self.spent_budget or 'none runs'}), and "
                "only then its architecture is decoded. Raise search.budget, and continue with --resume auto."
            )
        return list(found.values())

    def _score(self, candidate: int) -> tuple[float, float]:
        """Return how well a supernet keeps the constraints and its objective after its last epoch or `decode_epoch`."""
        results = {name: value for name, value in self._results.get(candidate, {}).items() if is_number(value)}
        goal = self.parts.objectives[0]
        value = goal.sign * results.get(goal.name, math.nan)
        violation = sum(each.violation(results) for each in self.parts.constraints)
        return -violation, value if math.isfinite(value) else -math.inf

    def example_of_finalist(self) -> Mapping[str, Any] | None:
        """Return the config of some network with a genotype."""
        return with_genotype(next(self.final.covering()).config, ANY_GENOTYPE)

    def config_of(self, candidate: int) -> dict[str, Any] | None:
        """Return the config of the decoded network; None if the candidate is not decoded."""
        genotype, drawn = self._genotypes.get(candidate), self.state.candidates[candidate].drawn
        if genotype is None or drawn is None:
            return None
        walk = self.parts.space.follow(drawn)[1]
        known = {site.identity: number for site, (_, number) in zip(walk.sites, walk.choices, strict=True)}

        def choose(site: Site) -> int | float:
            return known[site.identity]

        return with_genotype(self.final.walk(choose)[0], genotype)

    @property
    def title(self) -> str:
        """The name of the strategy."""
        return "AutoDeepLab"

    def sections(self) -> Sequence[Mapping[str, Any]]:
        """Return the genotypes, and the course of the architecture in the best supernet so far."""
        order = [index for index in self._ranked_or_none() if self.state.candidates[index].record.reports]
        if not order:
            return ()
        head = ["candidate", "decoded after epoch", *(str(goal) for goal in self.parts.objectives), "strides", "cell"]
        rows: list[list[Any]] = [head]
        for index in order:
            if index in self._genotypes:
                genotype = Genotype.from_json(self._genotypes[index])
                twin = next((each for each in order if self._genotypes.get(each) == self._genotypes[index]), index)
                cell = f"{genotype.num_blocks} blocks" if twin == index else f"the same as candidate {twin}"
                values = [self._results[index].get(goal.name) for goal in self.parts.objectives]
                rows.append([index, self._epochs[index], *values, path_text(genotype), cell])
            elif index in self._untrained:
                reason = f"not decoded: after epoch {self._untrained[index]} its architecture has not learned"
                rows.append([index, *[None] * (len(head) - 2), reason])
        text = "" if len(rows) > 1 else "No supernet is decoded yet."
        found: list[Mapping[str, Any]] = [{"title": "Genotypes", "text": text, "table": rows if not text else []}]
        shown = self.study.front() or order
        best = next((each for each in shown if each in self._genotypes), order[0])
        file = run_folder(self.study.folder, candidate_folder(best)) / ARCHITECTURES
        try:
            course = read_course(file)
        except SearchError:  # it may have been removed: the genotypes are in the journal
            course = []
        return [*found, *course_sections(best, course, self._genotypes.get(best), self._epochs.get(best))]

    def _ranked_or_none(self) -> list[int]:
        try:
            return self.study.ranked()
        except SearchError:
            return []


def with_genotype(config: Mapping[str, Any], genotype: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config whose network has a genotype."""
    merged: dict[str, Any] = deep_merge(config, {"arch": {"args": {"genotype": dict(genotype)}}})
    merged["arch"]["args"]["genotype"] = copy.deepcopy(dict(genotype))  # nothing of another one remains
    return merged


def _about_genotype(message: str, config: Mapping[str, Any]) -> str:
    """Return a fault of a final config; one of the genotype is a fault of the network, which takes none."""
    if not message.startswith("arch.args.genotype: unknown argument"):
        return message
    return (
        f"arch.type: {show(config['arch'].get('type'))} takes no genotype, and search.strategy writes one into its "
        'args. Name "AutoDeepLab", or a network that takes one.'
    )
