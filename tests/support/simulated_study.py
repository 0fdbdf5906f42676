"""Studies without processes: a strategy is driven as in a search, by workers whose moments and mishaps chance decides.

What a worker saves is a real file in its run folder, for strategies copy and delete such files.
"""

import json
import math
import random
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np

from search.executors.base import EpochReported, Executor, TaskFinished, WorkerLost, WorkerStarted
from search.results.architecture import ARCHITECTURES
from search.results.record import parse_objectives
from search.strategies.multi_fidelity import candidate_folder
from search.study import study as study_module
from search.study.driver import Driver, Recorder
from search.study.journal import RULES, Event
from search.study.study import Study
from utils.errors import DiskFull, EspalierError, Interrupted

CHECKPOINT = "checkpoint-last.pth"
SAVING = "_saving"
DISK_FULL = {"status": "failed", "reason": "checkpoint.pth: not written", "is_disk_full": True}
MOST_SESSIONS = 200
MOST_EVENTS = 300  # until which the user gives commands; a study may grow for ever


class Killed(BaseException):
    """The process of the search was killed."""


@dataclass
class World:
    """What happens to a run follows from its folder alone, so that it happens in every history.

    Attributes:
        fates: Share of the runs that each fate befalls, at an epoch that follows from the folder, too: "refused"
            (before training), "out_of_memory", "fails" and "hangs" (before the epoch, or with "_saving" after its
            report), "fills_disk" (once, the same two ways), "finishes" (after the epoch, by itself), and "diverges"
            (from the epoch on).
        deaths: Probability of each step of a worker that it dies instead; not often enough to be taken for a fault of
            its candidate.
        is_constant: Whether all results are equal.
    """

    fates: dict[str, float] = field(default_factory=dict)
    deaths: float = 0.0
    is_constant: bool = False

    def fate(self, run, epochs):
        chance = random.Random(f"fate {run}")
        share, epoch = chance.random(), chance.randrange(1, epochs + 1)
        for fate, of_all in self.fates.items():
            if share < of_all:
                return ("fails", 1) if fate == "fails_first" else (fate, epoch)
            share -= of_all
        return None, epoch

    def estimate(self, payload):
        """The predictions of a worker for the cells of a generation: random numbers, by its seed."""
        file, chance = Path(payload["folder"]) / "estimates.npz", np.random.default_rng(payload["seed"])
        names = [each.name for each in parse_objectives(payload["objectives"])]
        np.savez(file, **{f"mean.{name}": chance.random(payload["count"]) for name in names})
        return {"status": "ended", "file": str(file), "predictors": {name: {"name": "chance"} for name in names}}

    def shapes(self, payload):
        """The weights of all networks: a thousand for each cell, times their width."""
        names, grid = list(payload["grid"]), [payload["searched"], *payload["grid"].values()]
        shapes = [grid[0], *(dict(zip(names, values, strict=True)) for values in product(*grid[1:]))]
        costs = [
            {"cell": place, **shape, "params": weights_of(shape), "network": repr(list(shape.values()))}
            for shape in shapes
            for place in range(len(payload["cells"]))
        ]
        return {"status": "ended", "costs": costs}

    def row(self, run, epoch, epochs):
        fate, when = self.fate(run, epochs)
        chance = random.Random(f"value {run} {epoch}")
        values = (0.5, 0.5) if self.is_constant else (chance.choice([0.25, 0.5, chance.random()]), chance.random())
        if fate == "diverges" and epoch >= when:
            values = (math.nan, math.nan)
        return {"epoch": epoch, "val_miou": values[0], "val_loss": values[1]}


def weights_of(shape):
    """Weights of a network in the simulation."""
    return 1000 * (shape["motifs"] * (shape["normal_cells"] + 1) - 1) * shape["filters"]


class SimulatedWorkers(Executor):
    """Workers of which one at a time takes a step, in an order that chance decides."""

    def __init__(self, root, world, workers, chance):
        self.root, self.world, self.workers, self.chance = root, world, workers, chance
        self.tasks, self.steps, self.answers, self.started, self.deaths = {}, {}, {}, set(), Counter()
        self.is_interrupted = False

    def open(self, worker, folder):
        pass

    def close(self):
        pass

    def interrupt(self):
        self.is_interrupted = True

    @property
    def idle(self):
        return self.workers - len(self.tasks)

    def start(self, task):
        assert self.idle > 0
        assert task.id not in self.tasks
        assert run_of(task) not in map(run_of, self.tasks.values()), "two in one run"
        self.tasks[task.id], self.steps[task.id] = task, self.work(task)

    def wait(self, handle, timeout):
        name = self.chance.choice(list(self.tasks))
        run = run_of(self.tasks[name])
        if self.deaths[run] < 2 and self.chance.random() < self.world.deaths:
            self.deaths[run] += "candidates" not in run  # no event of it
            self.leave(name, handle, WorkerLost(name, "it was ended by SIGKILL", "died", name in self.started))
            return
        try:
            message = self.steps[name].send(self.answers.pop(name, None))
        except StopIteration as end:
            lost = WorkerLost(name, "it reported nothing for 5 s and was ended", "hung")
            self.leave(name, handle, lost if end.value is None else TaskFinished(name, end.value))
            return
        if isinstance(message, WorkerStarted):
            self.started.add(name)
        if message is not None:
            self.answers[name] = handle(message)

    def note(self, event):
        """Count the deaths of a run since its last new epoch, those of earlier sessions included."""
        run = self.root / (
            candidate_folder(event.candidate or 0) if "run" not in event.data else f"retrained/{event.data['run']}"
        )
        if event.kind == "lost":
            self.deaths[str(run)] += 1
        elif event.kind == "report":
            self.deaths[str(run)] = 0

    def leave(self, name, handle, message):
        for each in (self.tasks, self.steps, self.answers):
            each.pop(name, None)
        handle(message)

    def work(self, task):  # noqa: PLR0911, PLR0912 (it reads as the course of a training)
        """What `search.worker` does, one message after the other. None: it works; a return of None: it hangs."""
        if task.kind == "pool":
            yield WorkerStarted(task.id)
            return {"status": "ended", "values": {"val_miou": 0.5}}
        if task.kind == "shapes":
            yield WorkerStarted(task.id)
            yield None
            return {"status": "interrupted"} if self.is_interrupted else self.world.shapes(task.payload)
        if task.kind == "estimate":
            yield WorkerStarted(task.id)
            if (yield EpochReported(task.id, {"is_at_work": True})) != "continue":
                return {"status": "interrupted"}
            return {"status": "interrupted"} if self.is_interrupted else self.world.estimate(task.payload)
        payload, folder = task.payload, Path(task.payload["folder"])
        run, epochs = folder.relative_to(self.root).as_posix(), payload["config"]["trainer"]["epochs"]
        fate, when = self.world.fate(run, epochs)
        yield WorkerStarted(task.id)
        if payload.get("limits") is not None:
            if fate == "refused":
                return {"status": "refused", "reason": "params 9 is more than max_params 8", "facts": {"params": 9}}
            yield EpochReported(task.id, {"facts": {"params": len(run) + sum(map(ord, run)) % 7}})
        folder.mkdir(parents=True, exist_ok=True)
        history = folder / CHECKPOINT
        if task.begins_from is not None and not history.exists() and not (folder / "begin").exists():
            source = Path(task.begins_from) / CHECKPOINT
            if not source.exists():
                return {"status": "failed", "reason": f"{source}: there is no checkpoint"}
            shutil.copyfile(source, folder / "begin")
        rows = (
            json.loads((history if history.exists() else folder / "begin").read_text())
            if any((folder / name).exists() for name in (CHECKPOINT, "begin"))
            else []
        )
        assert len(rows) >= payload["reported"] - 1 or task.begins_from, "a checkpoint is missing"
        if not payload["reported"]:
            yield EpochReported(task.id, {"names": ["val_miou", "val_loss"]})
        for row in rows[payload["reported"] :]:
            if (yield EpochReported(task.id, {"epoch": row["epoch"], "row": row, "seconds": 1.0})) != "continue":
                return self.outcome(folder)
        until = payload.get("until") or epochs
        while len(rows) < until:
            epoch = len(rows) + 1
            yield None
            if self.is_interrupted:
                return {"status": "interrupted"}
            if fate in ("out_of_memory", "fails", "hangs") and epoch == when:
                return self.suffer(fate)
            if fate == "fills_disk" and epoch == when and fills_now(folder):
                return DISK_FULL
            rows.append(self.world.row(run, epoch, epochs))
            if payload["config"].get("arch") == "Supernet":
                write_architectures(folder, run, epoch)
            decision = yield EpochReported(task.id, {"epoch": epoch, "row": rows[-1], "seconds": 1.0})
            yield None
            if fate == "fills_disk_saving" and epoch == when:
                if fills_now(folder):
                    return DISK_FULL
            elif fate is not None and fate.endswith(SAVING) and epoch == when:
                return self.suffer(fate.removesuffix(SAVING))
            history.unlink(missing_ok=True)  # as a replacement does: a link retains the present content
            history.write_text(json.dumps(rows))
            if decision != "continue":
                return self.outcome(folder)
            if fate == "finishes" and epoch == when:
                break
        return self.outcome(folder, is_finished=not payload.get("until"))

    @staticmethod
    def suffer(fate):
        if fate == "hangs":
            return None
        return {"status": "out_of_memory" if fate == "out_of_memory" else "failed", "reason": f"it {fate}"}

    @staticmethod
    def outcome(folder, *, is_finished=False):
        size = sum(path.stat().st_size for path in folder.glob("*.pth"))
        return {"status": "ended", "is_finished": is_finished, "bytes": size, "test": {"test_miou": 0.5}}


def fills_now(folder):
    """Return whether a run finds the disk full, which happens once."""
    mark = folder / "has_filled_the_disk"
    is_first = not mark.exists()
    mark.touch()
    return is_first


def write_architectures(folder, run, epoch):
    """Write what a supernet writes of its architecture until an epoch: one of three, that follows from the run."""
    chance = np.random.default_rng(sum(map(ord, run)) % 3)
    epochs = [
        {"epoch": each, "alpha": chance.normal(size=(5, 8)).tolist(), "beta": chance.normal(size=(3, 4, 3)).tolist()}
        for each in range(1, epoch + 1)
    ]
    (folder / ARCHITECTURES).write_text(json.dumps({"epochs": epochs}))


def run_of(task):
    return task.payload.get("folder", task.id)


class MemoryJournal:
    """A journal in a list; each event goes through JSON as on disk.

    Attributes:
        kill_at: Number of events at which the process is killed, before the event takes effect; None: never.
    """

    def __init__(self, events, kill_at=None):
        self.events, self.kill_at = events, kill_at

    def append(self, name, candidate=None, **data):
        event = Event(name, candidate, json.loads(json.dumps(data)), float(len(self.events)))
        self.events.append(event)
        if len(self.events) == self.kill_at:
            raise Killed
        return event


@dataclass
class Simulation:
    """A study in sessions.

    Attributes:
        folder: Folder of the study.
        build_parts: Builds the parts of the study anew for each session.
        world: What happens to its runs.
        workers: Number of workers.
        seed: Of the order of events.
        commands: Probability of a command of the user at each look of the search.
        stops: Probability that the user stops the search, at each look.
        events: Its journal.
    """

    folder: Path
    build_parts: object
    world: World
    workers: int = 1
    seed: int = 0
    commands: float = 0.0
    stops: float = 0.0
    events: list = field(default_factory=lambda: [Event("study.created", None, {"rules": RULES}, 0.0)])
    num_sessions: int = 0

    def session(self, kill_at=None, watchers=()):
        """Work on the study until it is done; return it."""
        self.num_sessions += 1
        assert self.num_sessions < MOST_SESSIONS
        chance = random.Random(f"{self.seed} {self.num_sessions}")
        study = Study(self.folder, self.build_parts(), worker="")
        recorder = Recorder(MemoryJournal(self.events, kill_at), study.state, study.strategy, list(watchers))
        self.restore(study, recorder)
        workers = SimulatedWorkers(self.folder, self.world, self.workers, chance)
        for event in self.events:
            workers.note(event)
        recorder.watchers.append(lambda event, _: workers.note(event))
        driver = Driver(workers, study.strategy)
        driver.look = lambda: self.look(study, recorder, driver, chance)
        recorder.record("study.begin", environment={})
        recorder.watchers.append(study._clean(recorder))
        driver.run()
        self.check(study)
        return study

    def restore(self, study, recorder=None):
        """Apply the journal."""
        with patch.object(study_module, "read_events", lambda _: iter(list(self.events))):
            study.restore(recorder)

    def run(self, kills=(), watchers=()):
        """Work until it is done, killed after each of these numbers of further events."""
        kills = list(kills)
        while True:
            try:
                return self.session(len(self.events) + kills.pop(0) if kills else None, watchers)
            except (Killed, Interrupted, DiskFull):
                pass

    def look(self, study, recorder, driver, chance):
        """Let the user give a command now and then."""
        strategy, state = study.strategy, study.state
        paused = [index for index in getattr(strategy.strategies[0], "_paused", ()) if index in state.candidates]
        if strategy.is_waiting:
            for index in paused:
                with suppress(EspalierError):
                    strategy.obey("resume", {"candidate": index})
        if chance.random() < self.stops:
            driver.stop()
        if chance.random() >= self.commands or not state.candidates or len(self.events) > MOST_EVENTS:
            return
        candidate = chance.randrange(len(state.candidates))
        name = chance.choice(["pause", "pause", "resume", "stop", "enqueue", "grow"])
        with suppress(EspalierError):
            if name == "grow":
                num_samples = strategy.num_samples + chance.randrange(1, 4)
                strategy.grow(num_samples)
                recorder.record("study.grown", num_samples=num_samples)
            elif name == "enqueue":
                choices = study.parts.space.random(chance.randrange(10**6)).as_json()
                strategy.obey("enqueue", {"choices": choices})
            else:
                strategy.obey(name, {"candidate": candidate})

    def check(self, study):
        """What holds at the end of each study."""
        assert study.strategy.is_done
        state = study.state
        assert not state.held
        assert not state.jobs or study.parts.budget.epochs is not None
        for each in state.candidates.values():
            assert [row["epoch"] for row in each.record.reports] == list(range(1, each.record.epochs + 1))
            assert each.record.status != "running" or study.parts.budget.epochs is not None
        reports = Counter(
            (event.name, event.candidate, event.data.get("run"), event.data["epoch"])
            for event in self.events
            if event.kind == "report"
        )
        assert set(reports.values()) <= {1}, "an epoch was reported twice"
        assert not state.unknown
        study.record()


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name != "seconds_at"} for row in rows]


def results(study):
    """What does not depend on the time of events."""
    record = study.record()
    return repr(
        (
            [
                (c.index, c.status, c.drawn, c.inherited, c.objectives, c.best_epoch, without_seconds(c.reports))
                for c in record.candidates
            ],
            [(r.bracket, r.epochs, sorted(r.values.items()), sorted(r.promoted)) for r in study.rungs()],
            sorted((r.candidate, r.seed, r.status, r.rank, repr(without_seconds(r.reports))) for r in record.retrained),
            study.strategy.winner(),
            record.sections,
        )
    )


def copied(folder):
    """The files of a folder, as text by path."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put_back(folder, files):
    shutil.rmtree(folder)
    folder.mkdir()
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
