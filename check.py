"""Find the faults that would stop a training, and weaknesses of its data, before it begins: `train.py --check`.

Configuration, data and network are checked in one pass, and one fault does not hide the others: a refused value is left
out and the rest is checked without it. Nothing is written. `check_run(config)` is the whole check as a function.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from build import (
    build_loader,
    build_loss,
    build_merged_loader,
    build_metrics,
    build_network,
    build_optimizer,
    build_schedule,
    build_trainer,
    count_steps,
    read_data_spec,
    registry,
    require_agreement,
)
from config import DataSpec, class_and_arguments, trainer_options, variants
from config.checking.sound import SoundPart, build_stepwise, place_of, sound_part
from config.checking.splits import SPLIT_SECTIONS, is_merged, loader_section
from logger.check_report import CheckReport, Table
from utils.environment import resource_errors
from utils.errors import EspalierError, Finding, NotLearned, each_error, fault_of
from utils.files import writing_problem

if TYPE_CHECKING:
    from torch import Tensor

    from base import BaseDataLoader, BaseTrainer
    from data_loader.checking.compare import ClassRow
    from data_loader.checking.facts import SplitFacts
    from trainer.inspection.trial import StepFacts
    from trainer.trainer import Trainer

Built = TypeVar("Built")
LOADING = ("load_seconds", "valid_load_seconds")
NO_STEP = "a step of the training: the faults of its parts must be repaired first."
_GUESSED_CLASSES = 2  # to build a network when neither file nor data say how many there are
Progress = Callable[[str, int, int], None]
"""Called with the name of a split, the number of samples that were read, and that of all."""


def check_run(
    config: Mapping[str, Any], devices: str | None = None, *, is_overfit: bool = False, progress: Progress | None = None
) -> CheckReport:
    """Check a configuration with everything that it names.

    Args:
        config: From `load_config`; it is not changed.
        devices: From the command line, e.g. `"0,1"` or `"cpu"`; by default the config's `n_gpu`.
        is_overfit: The same samples are meant to be trained and validated on.
        progress: Told how far the reading of the data is.
    """
    sound = sound_part(config, registry())
    check = _Check(config, sound)
    check.report.findings += [Finding("config", place_of(message), message) for message in sound.faults]
    if sound.config is None:
        check.report.notes.append("data and network: the configuration does not say enough to build them.")
        return check.report
    check.look_around(sound.config)
    loaders = check.build_loaders(sound.config)
    facts = check.examine(loaders, is_overfit=is_overfit, progress=progress)
    check.try_network(loaders, facts, devices)
    return check.report


@dataclass
class _Check:
    """A check on its way: the rest of the configuration, and the findings.

    Attributes:
        original: The configuration as the user wrote it.
        sound: The configuration without its faults; values that turn out to be refused are taken out of it as well.
        report: Everything found so far.
    """

    original: Mapping[str, Any]
    sound: SoundPart
    report: CheckReport = field(default_factory=CheckReport)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration without the values that are refused."""
        assert self.sound.config is not None
        return self.sound.config

    def attempt(
        self, build: Callable[[dict[str, Any]], Built], section: str, *, is_alone: bool = False
    ) -> Built | None:
        """Build an object; every error on the way becomes a fault; a refused value is left out from then on.

        Args:
            build: From the configuration to the object.
            section: The place of errors that name none.
            is_alone: The training data is not there: values that are learned from it are not missing in the file.
        """
        made: Built | None = None
        with self.surviving(section):
            made, errors, self.sound.config = build_stepwise(build, self.config)
            own = [each for each in errors if not (is_alone and NotLearned in (type(each), type(each.__cause__)))]
            found = [fault_of(error, place_of(str(error)) or section) for error in own]
            self.report.findings += [each for each in found if each not in self.report.findings]
            if len(own) < len(errors):
                self.report.notes.append(f"the data of {section}: it needs what the training data settles.")
        return made

    @contextmanager
    def surviving(self, section: str) -> Iterator[None]:
        """Turn any error of a block, also one in the code of a plug-in, into a fault of a section."""
        try:
            with resource_errors():
                yield
        except EspalierError as error:
            found = [fault_of(each, place_of(str(each)) or section) for each in each_error(error)]
            self.report.findings += [each for each in found if each not in self.report.findings]
        except (Exception, SystemExit) as error:
            from base.inspection.failures import first_line

            message = (
                f"{first_line(error)}: the code of a class that it names ends so, and a training would end there, too. "
                "Correct that class, or name another one."
            )
            if (fault := Finding("config", section, message)) not in self.report.findings:
                self.report.findings.append(fault)

    @contextmanager
    def noting_warnings(self, section: str) -> Iterator[None]:
        """Add the warnings of a loader in the log, such as files of unread kinds, to the findings."""
        collected = _Warnings()
        log = logging.getLogger("data_loader")
        log.addHandler(collected)
        try:
            yield
        finally:
            log.removeHandler(collected)
        found = [Finding("data", section, message, is_fault=False) for message in collected.messages]
        self.report.findings += [each for each in found if each not in self.report.findings]

    def look_around(self, config: dict[str, Any]) -> None:
        """Look for the packages that the configuration needs, and for a folder that a run can be saved in."""
        from logger.trackers import require_packages

        with self.surviving("visualization"):
            require_packages(config)
        save_dir = Path(trainer_options(config)["save_dir"])
        if problem := writing_problem(save_dir / config.get("name", "") / "run"):
            message = f"{save_dir} cannot be written, {problem}. Runs are saved below it. Name another folder."
            self.report.findings.append(Finding("config", "trainer.save_dir", message))

    def build_loaders(self, config: dict[str, Any]) -> "dict[str, BaseDataLoader]":
        """Build the loaders of all splits that the configuration has, as training and test do."""
        loaders: dict[str, BaseDataLoader] = {}
        for split in SPLIT_SECTIONS:
            section, train_loader = loader_section(config, split), loaders.get("train")
            if section is None:
                continue
            if not self.sound.is_own(section):
                if split == "train" or section != "data_loader":
                    self.report.notes.append(f"the data of {section}: its fault must be repaired first.")
                continue
            if split == "valid" and section == loader_section(config, "train"):
                loader = None
                with self.surviving(section):
                    loader = None if train_loader is None else train_loader.split_validation()
            else:
                learned = None if train_loader is None or split == "train" else train_loader.learned
                build = partial(_evaluation_or_training_loader, split, learned)
                with self.noting_warnings(section):
                    loader = self.attempt(build, section, is_alone=train_loader is None and split != "train")
            if loader is not None:
                loader.is_training = split == "train"
                loaders[split] = loader
        if "train" in loaders and loaders.get("valid") is not None and "valid_loader" in config:
            self.attempt(lambda config: require_agreement(config, loaders["train"], loaders["valid"]), "valid_loader")
        return loaders

    def examine(
        self, loaders: "Mapping[str, BaseDataLoader]", *, is_overfit: bool, progress: Progress | None
    ) -> "dict[str, SplitFacts]":
        """Read every sample of every split and return the facts of the splits."""
        from data_loader.checking.compare import class_balance, compare_splits
        from data_loader.checking.examine import examine

        facts: dict[str, SplitFacts] = {}
        for split, loader in loaders.items():
            section = self.section_of(split)
            progress_of_split = None if progress is None else partial(progress, split)
            with self.surviving(section):
                facts[split], findings = examine(loader, section, progress_of_split)
                # Splits may share a file.
                self.report.findings += [finding for finding in findings if finding not in self.report.findings]
        self.report.findings += compare_splits(facts, is_overfit)
        if facts:
            self.report.tables.append(_splits_table(facts))
            self.report.facts["splits"] = {split: _as_json(each) for split, each in facts.items()}
        if balance := class_balance(facts):
            rows = [_balance_cells(row, list(facts)) for row in balance]
            self.report.tables.append(Table("Share of the labels", ("", *facts, "balanced weight"), rows))
            self.report.facts["classes"] = [row._asdict() for row in balance]
        return facts

    def try_network(
        self, loaders: "Mapping[str, BaseDataLoader]", facts: "Mapping[str, SplitFacts]", devices: str | None
    ) -> None:
        """Build the network and everything that trains it, as training does, and try it."""
        from torch import nn

        from trainer.runtime.devices import ALONE, RunPrecision, choose_devices, prepare_for_training, seed_run
        from trainer.trainer import TrainingPlan

        if is_merged(self.config) and {"train", "valid"} <= loaders.keys():
            merged = self.attempt(build_merged_loader, "trainer")
            loaders = {"train": loaders["train"] if merged is None else merged}
        train_loader, options = loaders.get("train"), trainer_options(self.config)
        if "valid" not in loaders and self.is_faulty("valid_loader", "data_loader"):  # train results stand in
            options["monitor"] = options["monitor"].replace("val_", "")
        used_devices = self.attempt(lambda config: choose_devices(config.get("n_gpu"), devices), "n_gpu")
        if used_devices is None:
            return
        precision = RunPrecision.from_options(used_devices[0], options)
        plan = TrainingPlan.from_options(options, precision=precision)
        seed_run(self.config.get("seed", 0), used_devices[0], deterministic=options["deterministic"])
        spec = self.data_spec(loaders, facts)
        is_guessed = spec.num_classes is None and not loaders
        network = None
        if self.sound.is_own("arch"):
            guess = replace(spec, num_classes=_GUESSED_CLASSES) if is_guessed else spec
            network = self.attempt(lambda config: build_network(config, guess, plan), "arch")
        # Without the network, its optimizer, schedule and loss can still be checked.
        model = nn.Linear(1, 1) if network is None else network
        optimizer = self.attempt(
            lambda config: build_optimizer(config if network is not None else _without_groups(config), model),
            "optimizer",
        )
        schedule = None
        if optimizer is not None and train_loader is not None:
            steps = self.attempt(lambda config: count_steps(config, plan, train_loader), "trainer") or 1
            schedule = self.attempt(lambda config: build_schedule(config, optimizer, plan, steps), "lr_scheduler")
        if is_guessed:
            self.report.notes.append("loss, metrics and a step of the training: only the data says the classes.")
            return
        loss = self.attempt(lambda config: build_loss(config, spec, model).to(precision.device), "loss")
        metrics = self.attempt(lambda config: build_metrics(config, spec, self.sound.stand_ins), "metrics")
        if optimizer is None or loss is None or metrics is None or train_loader is None:
            self.report.notes.append(NO_STEP)
            return
        wrapped = self.attempt(
            lambda config: prepare_for_training(model, options, precision, ALONE, used_devices), "trainer"
        )
        parts = {"criterion": loss, "train_loader": train_loader, "valid_loader": loaders.get("valid")}
        parts |= {"metrics": metrics, "plan": plan, "lr_scheduler": schedule}
        trainer = None
        for monitor in (plan.monitor, "off"):  # a step can be tried, whichever result is watched
            if wrapped is not None and trainer is None and not self.monitors_stand_in(monitor):
                parts["plan"] = replace(plan, monitor=monitor)
                trainer = self.attempt(lambda config: build_trainer(config, wrapped, optimizer, **parts), "trainer")
        is_own = network is not None and not any(path.startswith("loss") for path in self.sound.stand_ins)
        if trainer is not None and is_own:
            self.try_step(trainer)
        else:
            self.report.notes.append(NO_STEP)

    def try_step(self, trainer: "BaseTrainer") -> None:
        """Run a step on real samples, and forecast the whole run."""
        from trainer.inspection.memory import step_memory_findings
        from trainer.inspection.trial import Trial, try_step
        from trainer.trainer import Trainer

        if not isinstance(trainer, Trainer):
            self.report.notes.append("a step of the training: the trainer is of another kind.")
            return
        findings, sections = self.report.findings, [self.section_of("train")]
        if trainer.valid_loader is not None:
            sections.append(self.section_of("valid"))
        memory: list[Finding] = []
        with self.surviving("trainer"):
            memory = step_memory_findings(trainer, *sections)
        findings += memory
        if any(finding.is_fault for finding in memory):
            return
        batches, seconds = [], []
        for loader, section in zip((trainer.train_loader, trainer.valid_loader), sections, strict=False):
            places = [each.place for each in findings if each.is_fault]
            own = (section, f"{section}.args.transforms")
            is_known = any(place in own or place.startswith(f"{section}, sample ") for place in places)
            before = list(findings)
            batch = self.attempt(lambda _, loader=loader: loader.example(leaves_out_faulty=True), section)  # type: ignore[misc]
            if batch is None or loader is None:
                known = {each.message for each in before}
                new = [each for each in findings[len(before) :] if each.message not in known]
                findings[:] = [*before, *([] if is_known else new)]  # the reading named the files
                self.report.notes.append(NO_STEP)
                return
            batches.append(batch)
            begin = perf_counter()
            loader.example(leaves_out_faulty=True)  # once more: the first time loads packages, too
            seconds.append(perf_counter() - begin)
        named = dict(zip(("section", "valid_section"), sections, strict=False))
        trial = Trial(None, [])
        with self.surviving("trainer"):
            trial = try_step(trainer, *batches, **named)
        findings += [finding for finding in trial.findings if finding not in findings]
        if trial.facts is None:
            return
        self.describe(trainer, trial.facts, batches[0][0], dict(zip(LOADING, seconds, strict=False)))

    def describe(self, trainer: "Trainer", step: "StepFacts", inputs: "Tensor", loading: Mapping[str, float]) -> None:
        """Add the summary of the network and the forecast of the run, from a step that worked, to the report.

        Args:
            trainer: It made the step.
            step: The costs of the step.
            inputs: (B, C, ...) of a batch.
            loading: Seconds in which a batch is loaded, by the names that `forecast_run` gives them.
        """
        from base.inspection.summary import network_summary, num_weights
        from trainer.inspection.forecast import forecast_run, forecast_text
        from trainer.runtime.devices import unwrap

        report, options = self.report, trainer_options(self.config)
        try:
            report.network = network_summary(unwrap(trainer.model), inputs)
        except EspalierError as error:  # it is run on a single sample, which a training may never do
            report.notes.append(f"the summary of the network: {error}")
        forecast = forecast_run(
            trainer,
            step,
            save_dir=Path(options["save_dir"]),
            save_period=options["save_period"],
            section=self.section_of("train"),
            **loading,
        )
        report.findings += [finding for finding in forecast.findings if finding not in report.findings]
        report.forecast = forecast_text(forecast)
        report.facts["network"] = {"parameters": num_weights(unwrap(trainer.model))} | asdict(step)
        report.facts["forecast"] = {key: value for key, value in asdict(forecast).items() if key != "findings"}

    def is_faulty(self, *sections: str) -> bool:
        """Return whether a fault was found in one of these sections."""
        return any(each.is_fault and each.place.partition(".")[0] in sections for each in self.report.findings)

    def section_of(self, split: str) -> str:
        """Return the JSON path of the loader of a split."""
        return loader_section(self.config, split) or split

    def monitors_stand_in(self, monitor: str) -> bool:
        """Return whether the monitor may be a result of a metric that does not exist, which is a fault already."""
        metrics = self.original.get("metrics")
        for number, metric in enumerate(metrics if isinstance(metrics, list) else []):
            name = metric.get("type") if isinstance(metric, Mapping) else metric
            if isinstance(name, str) and f"metrics.{number}" in self.sound.stand_ins and name in monitor:
                return True
        return monitor != "off" and "metrics" in self.sound.stand_ins

    def data_spec(self, loaders: "Mapping[str, BaseDataLoader]", facts: "Mapping[str, SplitFacts]") -> DataSpec:
        """Return the properties of the data that network, loss and metrics are built for.

        Classes were counted when the data was read. If the training data cannot be loaded, another split or the file
        tells its properties.
        """
        spec = DataSpec.from_config(self.config)
        if loader := next(iter(loaders.values()), None):
            spec = self.attempt(lambda config: read_data_spec(config, loader), "arch") or spec
        elif names := next(_class_names(self.config), None):
            spec = replace(spec, class_names=names, num_classes=spec.num_classes or len(names))
        if any(variants.rules_without_counts(self.config, registry())):
            trained_on = ("train", "valid") if is_merged(self.config) else ("train",)
            seen = [facts[split] for split in trained_on if split in facts]
            if counts := [each.class_counts for each in seen if each.class_counts]:
                alike = [each for each in counts if len(each) == len(counts[0])]  # other numbers are a fault already
                spec = replace(spec, class_counts=[sum(column) for column in zip(*alike, strict=True)])
            elif spec.num_classes and not any(each.num_readable for each in seen):
                spec = replace(spec, class_counts=[1] * spec.num_classes)
        return spec


class _Warnings(logging.Handler):
    """Keeps the messages of warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.messages.append(record.getMessage())


def _evaluation_or_training_loader(
    split: str, learned: Mapping[str, Any] | None, config: Mapping[str, Any]
) -> "BaseDataLoader | None":
    return build_loader(config, split, as_evaluation=split == "test", learned=learned)


def _class_names(config: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the names of the classes that the loaders of a config state."""
    for section in filter(None, (loader_section(config, split) for split in SPLIT_SECTIONS)):
        names = class_and_arguments(config, section, registry())[1].get("classes")
        if isinstance(names, list) and names:
            yield names


def _without_groups(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config whose optimizer has no rules for the parts of a network."""
    spec = config["optimizer"]
    plain = {key: spec[key] for key in ("type", "args") if key in spec} if isinstance(spec, Mapping) else spec
    return {**config, "optimizer": plain}


def _splits_table(facts: "Mapping[str, SplitFacts]") -> Table:
    """Return the number of samples, their sizes and the share of ignored labels of each split."""
    rows = []
    for split, each in facts.items():
        sizes = each.size_range()
        shown = ["-"] * 3 if sizes is None else [f"{size[0]}x{size[1]}" for size in sizes]
        rows.append(
            (split, f"{each.num_samples:,}", f"{each.num_unreadable:,}", *shown, f"{100 * each.ignored_share:.1f} %")
        )
    return Table("Data", ("", "samples", "unreadable", "smallest", "median", "largest", "ignored"), rows)


def _balance_cells(row: "ClassRow", splits: Sequence[str]) -> list[str]:
    """Return the name of a class, its share of the labels of each split, and its weight."""
    shares = (row.shares.get(split) for split in splits)
    weight = "-" if row.weight is None else f"{row.weight:.2f}"
    return [row.name, *("-" if share is None else f"{100 * share:.2f} %" for share in shares), weight]


def _as_json(facts: "SplitFacts") -> dict[str, Any]:
    """Return the numbers of a split as plain data."""
    sizes = facts.size_range()
    return {
        "samples": facts.num_samples,
        "unreadable": facts.num_unreadable,
        "sizes": None if sizes is None else dict(zip(("smallest", "median", "largest"), map(list, sizes), strict=True)),
        "ignored_share": facts.ignored_share,
        "classes": list(facts.class_names),
        "class_counts": facts.class_counts,
        "class_samples": facts.class_samples,
    }
