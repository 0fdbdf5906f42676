"""Population based training: hyperparameters change while the networks train."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from search.executors.base import Task
from search.results.leaderboard import winner_of
from search.results.record import StudyRecord, Tally
from search.schedulers.base import Job, Need
from search.schedulers.halving import RandomSearch
from search.schedulers.population import Offspring, Population
from search.space.drawn import Drawn
from search.space.scales import Interval, scale_of
from search.space.walk import Site
from search.strategies.base import Outcome
from search.strategies.multi_fidelity import MultiFidelity, candidate_folder
from search.study.folders import run_folder
from search.study.settings import StudyParts
from search.study.state import CandidateState
from utils.errors import ConfigError, SearchError
from utils.seeding import derive_seed

PARENT = "parent"  # in the run folder of a child: the checkpoints that it begins with
CHANGEABLE = ("optimizer.args", "lr_scheduler.args", "loss", "train_loader.args")


class PBT(MultiFidelity):
    """Population based training (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846), in rounds.

    `num_samples` candidates are drawn and trained for `interval` epochs. Then each of the worst is replaced by a child
    of one of the best: a new candidate that continues the weights, the state of the optimizer and the epochs of its
    parent, with other values; and so on until `trainer.epochs`. Candidates are compared by the results of the last
    epoch of a round, since the weights of this epoch are taken over.

    A child changes only values that may change during a training (`perturb`). Everything else that is searched, such as
    the network, it has from its parent: a network remains in the population only as long as it has descendants. A child
    that is refused, runs out of memory or fails is replaced in the next round. The winner has its weights already and
    is not trained again: no single config would lead to them.

    Args:
        parts: The parts of the study.
        interval: Epochs of a round.
        quantile: Share of the population that is replaced, and share of those that replace them.
        resample: Probability with which a value of a child is drawn anew, not changed a little.
        factor: By which a number is multiplied or divided otherwise. One of a list of numbers is moved to the next.
        perturb: JSON paths of the values that change, e.g. `["optimizer.args.lr"]`; by default the arguments of
            optimizer, schedule, losses and `train_loader`.
        stage: Name of the stage.

    Raises:
        ConfigError: An argument is out of its range, or the study has a scheduler or a retraining.
    """

    trains_in_folds = False

    def __init__(
        self,
        parts: StudyParts,
        *,
        interval: int,
        quantile: float = 0.2,
        resample: float = 0.25,
        factor: float = 1.2,
        perturb: list[str] | None = None,
        stage: str = "search",
    ) -> None:
        super().__init__(parts, stage=stage)
        if not isinstance(parts.scheduler, RandomSearch):
            raise ConfigError(
                f"search.scheduler: {type(parts.scheduler).__name__}, and PBT decides itself how long each candidate "
                "trains. Leave search.scheduler out."
            )
        if parts.retrain is not None and parts.retrain.top:
            raise ConfigError(
                f"search.retrain: top {parts.retrain.top}, and the values of a candidate of PBT have changed while it "
                "trained: no config leads to its weights. Leave search.retrain out; best/ has the weights."
            )
        if not 0 <= resample <= 1:
            raise ConfigError(f"resample {resample}: must be a probability. Set resample to 0.25.")
        if factor <= 1:
            raise ConfigError(f"factor {factor}: must be above 1. Set factor to 1.2.")
        self._draw_at_random_by_default()  # a population is as diverse as random draws are
        self._resample = resample
        self._factor = factor
        self._changeable = CHANGEABLE if perturb is None else tuple(perturb)
        for path in () if perturb is None else perturb:
            if not any(_is_below(site.path, path) for site in parts.space.sites):
                found = ", ".join(dict.fromkeys(site.path for site in parts.space.sites)) or "none"
                raise ConfigError(f'perturb "{path}": no searched value is there ({found}). Name one of these.')
        self.scheduler = self._population = Population(
            parts.scheduler.num_samples,
            parts.max_epochs,
            interval=interval,
            quantile=quantile,
            seed=parts.space.study_seed,
        )

    def obey(self, name: str, data: Mapping[str, Any]) -> None:
        """Carry out a command of the user.

        Raises:
            SearchError: A candidate is enqueued, and all members of the population are drawn.
        """
        if name == "enqueue" and len(self._enqueued) >= self._population.num_vacant:
            raise SearchError(
                f"enqueue: the population has its {self.num_samples} members, and a new one would be behind. Start a "
                "new search with this candidate as one of search.first."
            )
        super().obey(name, data)

    def _add_to_tally(self, state: CandidateState, row: Mapping[str, float]) -> tuple[float, ...]:
        """Return the values of this epoch alone: its weights are those that are taken over."""
        super()._add_to_tally(state, row)
        return Tally(self.parts.objectives, state.record.facts, self.parts.constraints).add(row)

    def _draw(self, need: Need) -> int | None:
        """Return the number of a new member or of a child."""
        if not isinstance(need, Offspring):
            return super()._draw(need)
        state, space = self.state, self.parts.space
        if self._unadmitted is None:
            number, parent = state.next_number, state.candidates[need.parent]
            assert parent.drawn is not None, "set when it was drawn"
            drawn = self._explored(number, parent.drawn)
            key = f"{space.key(drawn)} from {need.parent} after {need.epochs}"  # no duplicate of one begun otherwise
            data = {"choices": drawn.as_json(), "drawn": space.label(drawn), "seed": space.seed(number), "key": key}
            self.study.record(f"{self.stage}.drawn", number, **data)
        child = self._unadmitted
        assert child is not None, "set when it was drawn"
        if state.candidates[child].parent is None:  # killed after it was drawn
            data = {"parent": need.parent, "epoch": need.epochs, "replaces": need.replaces}
            self.study.record(f"{self.stage}.exploited", child, **data)
        return child

    def _explored(self, number: int, parent: Drawn) -> Drawn:
        """Return the choices of a child, which follow from its number and those of its parent."""
        space = self.parts.space
        rng = np.random.default_rng(derive_seed(space.study_seed, "explored", number))
        walk = space.follow(parent)[1]
        known = {site.identity: chosen for site, (_, chosen) in zip(walk.sites, walk.choices, strict=True)}

        def choose(site: Site) -> int | float:
            chosen = known.get(site.identity)
            if chosen is not None and not any(_is_below(site.path, path) for path in self._changeable):
                return chosen
            if chosen is None or rng.random() < self._resample:  # new ones are in branches that are newly chosen
                return scale_of(site.marker).at(rng.random())
            return perturbed(site, chosen, self._factor if rng.random() < 0.5 else 1 / self._factor)

        return space.walk(choose)[1].drawn

    def _may_start(self, job: Job) -> bool:
        """Return whether a job can begin: a child waits until its parent has saved the state."""
        parent = self.state.candidates[job.candidate].parent
        if parent is not None and self._needs_parent(job.candidate):
            present = self.state.jobs.get(parent)
            if present is not None and present.start < self.state.candidates[job.candidate].record.inherited:
                return False
        return super()._may_start(job)

    def _needs_parent(self, child: int) -> bool:
        """Return whether a child may yet begin with its parent's checkpoint: none of its own epochs is reported."""
        record = self.state.candidates[child].record
        return record.status == "running" and not record.own_reports

    def _children(self, parent: int) -> list[int]:
        """Return the children of a candidate that may yet begin with its checkpoint."""
        jobs = self.state.jobs
        return [each for each in jobs if self.state.candidates[each].parent == parent and self._needs_parent(each)]

    def may_resume(self, candidate: int) -> bool:
        """Return whether a candidate may be trained further, or a child needs its checkpoint."""
        return super().may_resume(candidate) or bool(self._children(candidate))

    def _task_of(self, job: Job, state: CandidateState) -> Task:
        """Return the task of a job; a child begins with its parent's checkpoint, which the parent may overwrite."""
        for child in self._children(job.candidate):
            if self.state.candidates[child].record.inherited <= job.start:  # else this job has yet to save it
                self._store_start(child)
        if state.parent is not None and self._needs_parent(job.candidate):
            self._store_start(job.candidate)
        task = super()._task_of(job, state)
        if state.parent is None:
            return task
        return replace(task, begins_from=str(Path(task.payload["folder"]) / PARENT))

    def _store_start(self, child: int) -> None:
        """Store the checkpoints of a child's parent in the child's folder, once and without taking space."""
        parent = self.state.candidates[child].parent
        assert parent is not None, "only children begin with another's checkpoint"
        folder = run_folder(self.study.folder, candidate_folder(child)) / PARENT
        if folder.exists():
            return
        new = folder.with_name(f".{PARENT}.new")
        try:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            for path in run_folder(self.study.folder, candidate_folder(parent)).glob("*.pth"):
                # A checkpoint is replaced as a whole, so another name of the file retains the present one.
                try:
                    os.link(path, new / path.name)
                except OSError:  # a file system without such links
                    shutil.copyfile(path, new / path.name)
            new.replace(folder)
        except OSError as error:
            raise SearchError(
                f"{folder}: cannot be written ({error.strerror}). A child of PBT begins with its parent's checkpoint. "
                "Free some space or correct the permissions, and continue with --resume auto."
            ) from error

    def ended(self, task: Task, outcome: Outcome) -> None:
        """Record the end of a task; a child that has a checkpoint of its own needs its parent's no more."""
        super().ended(task, outcome)
        assert task.candidate is not None, "each task of this strategy has a candidate"
        if task.begins_from is not None and not self._needs_parent(task.candidate):
            with suppress(OSError):
                shutil.rmtree(task.begins_from)

    @property
    def title(self) -> str:
        """The name of the strategy, which has no other scheduler."""
        return "PBT"

    def sections(self) -> Sequence[Mapping[str, Any]]:
        """Return the schedule of values that led to the winner's weights, and who replaced whom."""
        candidates = self.state.candidates
        children = {index: each for index, each in candidates.items() if each.parent is not None}
        if not children:
            return ()
        found: list[Mapping[str, Any]] = []
        winner = self._present_winner()
        if winner is not None:
            found.append({"title": "Schedule of the winner", "table": self._schedule(winner)})
        rows: list[list[Any]] = [
            ["epoch", "child", "parent", *(f"{each} of the parent" for each in self.parts.objectives)]
        ]
        for index, each in children.items():
            assert each.parent is not None, "they are children"
            values = candidates[each.parent].values[each.record.inherited - 1]
            signed = [value * goal.sign for value, goal in zip(values, self.parts.objectives, strict=True)]
            rows.append([each.record.inherited, index, each.parent, *signed])
        return [*found, {"title": "Population based training", "table": rows}]

    def _present_winner(self) -> int | None:
        """Return the best candidate so far, as the study chooses it."""
        record = StudyRecord(
            name="",
            folder="",
            config={},
            scheduler="",
            objectives=list(map(str, self.parts.objectives)),
            max_epochs=self.parts.max_epochs,
            candidates=[each.record for each in self.state.candidates.values()],
            constraints=list(map(str, self.parts.constraints)),
        )
        winner = winner_of(record)
        return None if winner is None else winner.index

    def _schedule(self, winner: int) -> list[list[Any]]:
        """Return a row for each ancestor of the winner: its epochs, its values that change, and the results."""
        line = [winner]
        while (parent := self.state.candidates[line[-1]].parent) is not None:
            line.append(parent)
        records = [self.state.candidates[each].record for each in reversed(line)]
        ends = [*(after.inherited for _, after in pairwise(records)), records[-1].epochs]
        names = dict.fromkeys(
            name
            for each in records
            for name, _ in each.drawn
            if any(_is_below(name, path) for path in self._changeable)
        )
        rows: list[list[Any]] = [["epochs", "candidate", *names, *map(str, self.parts.objectives)]]
        for each, end in zip(records, ends, strict=True):
            drawn = dict(each.drawn)
            known = each.facts | each.reports[end - 1]
            results = [known.get(goal.name) for goal in self.parts.objectives]
            span = f"{each.inherited + 1} to {end}"
            rows.append([span, each.index, *(drawn.get(name) for name in names), *results])
        return rows


def perturbed(site: Site, chosen: float, factor: float) -> int | float:
    """Return a number that a marker can draw near another one.

    Args:
        site: The marker. A choice between values that are not all numbers has no neighbours: the choice remains.
        chosen: A number that it draws, or the index of a branch.
        factor: By which the number is multiplied; the result remains within the marker. Of whole numbers, and of a list
            of numbers, it is at least the next one in this direction.
    """
    scale = scale_of(site.marker)
    if isinstance(scale, Interval):
        return scale.nearest(scale.unit(max(scale.low, min(scale.high, chosen * factor))))
    numbers: Sequence[float] = site.marker.get("$choice", scale.outcomes)
    if not all(type(number) in (int, float) for number in numbers):
        return chosen
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    indices = "$choice" in site.marker
    place = order.index(int(chosen) if indices else scale.outcomes.index(int(chosen)))
    up = (factor > 1) == (numbers[order[place]] >= 0)
    target = numbers[order[place]] * factor
    nearest = min(range(len(order)), key=lambda other: (abs(numbers[order[other]] - target), other))
    if indices or nearest == place:
        nearest = min(max(place + (1 if up else -1), 0), len(order) - 1)
    return order[nearest] if indices else scale.outcomes[order[nearest]]


def _is_below(path: str, above: str) -> bool:
    """Return whether a JSON path is another one or lies in it."""
    return path == above or path.startswith((f"{above}.", f"{above}["))
