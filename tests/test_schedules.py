"""The course of the learning rate: warm-up, chains, poly, groups with their rates, and runs of another length."""

import re

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from base.schedule import LearningRateSchedule
from config.objects import instantiate
from trainer import SECTIONS
from trainer.checkpoints.saving import plain
from trainer.optim.schedules import combine_schedulers, rate_of
from utils.errors import CheckpointError, ConfigError

STEPS_PER_EPOCH = 5


class Course:
    """An optimizer and its schedule as a run has them, without the run."""

    def __init__(self, section, epochs=2, monitor="off", groups=None, steps_per_epoch=STEPS_PER_EPOCH):
        weight = nn.Parameter(torch.zeros(1))
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self.optimizer = torch.optim.SGD(groups(weight) if groups else [weight], lr=1.0, momentum=0.9)

        def build_part(path, defaults):
            runtime = {"optimizer": self.optimizer}
            return instantiate({"lr_scheduler": section}, path, SECTIONS, runtime=runtime, defaults=defaults)

        length = {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
        self.schedule = combine_schedulers(section, self.optimizer, build_part, **length, monitor=monitor)

    def run(self, first=0, last=None):
        """Train from one epoch to another; return rate and momentum of every group before each step."""
        seen = []
        for _ in range(first, self.epochs if last is None else last):
            for _ in range(self.steps_per_epoch):
                seen.append([(float(group["lr"]), group["momentum"]) for group in self.optimizer.param_groups])
                self.optimizer.step()
                self.schedule.after("step")
            self.schedule.after("epoch", {"val_loss": 1.0})
        return seen

    def saved(self):
        return plain({"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()})

    def restore(self, saved, epochs_done):
        self.optimizer.load_state_dict(saved["optimizer"])
        moves = self.steps_per_epoch if self.schedule.interval == "step" else 1
        left, due = (self.epochs - epochs_done) * moves, epochs_done * moves
        self.schedule.load_state_dict(saved["schedule"], moves_left=max(0, left), moves_due=due)
        return self


def rates(section, **options):
    """The learning rate of the first group (of all, if there are several) before each step."""
    now = [[rate for rate, _ in groups] for groups in Course(section, **options).run()]
    return [each if len(each) > 1 else each[0] for each in now]


def test_poly_falls_step_by_step_to_zero_at_the_end_of_the_run():
    assert rates("poly") == pytest.approx([(1 - step / 10) ** 0.9 for step in range(10)])


def test_a_warm_up_leads_to_the_full_rate_and_the_rest_is_laid_out_for_what_is_left():
    seen = rates({"type": "poly", "args": {"power": 1.0}, "warmup": 4})
    assert seen[:4] == pytest.approx([0.001, 0.25075, 0.5005, 0.75025])
    assert seen[4:] == pytest.approx([1 - step / 6 for step in range(6)])


def test_a_chain_hands_over_when_its_part_is_over():
    section = [
        {"type": "ConstantLR", "args": {"factor": 0.5, "total_iters": 100}, "moves": 3, "interval": "step"},
        {"type": "CosineAnnealingLR"},
    ]
    seen = rates(section)
    assert seen[:4] == pytest.approx([0.5, 0.5, 0.5, 1.0])
    assert seen[-1] < 0.06


def test_per_epoch_by_default():
    assert rates({"type": "ExponentialLR", "args": {"gamma": 0.1}}) == pytest.approx([1.0] * 5 + [0.1] * 5)


def test_the_rate_is_told_without_the_factors_of_groups():
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    groups = [
        {"params": [each], "lr": 0.3 * scale, "lr_scale": scale}
        for each, scale in zip(weights, (0.1, 0.5, 0), strict=True)
    ]
    assert rate_of(torch.optim.SGD(groups, lr=0.3)) == pytest.approx(0.3)
    assert rate_of(torch.optim.SGD(weights, lr=0.3)) == 0.3
    assert rate_of(torch.optim.SGD([groups[2]], lr=0.3)) == 0.0


def test_cycles_keep_the_rates_of_groups_apart(caplog):
    def groups(weight):
        return [{"params": [weight]}, {"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1, "lr_scale": 0.1}]

    seen = rates({"type": "OneCycleLR", "args": {"max_lr": 2.0}}, groups=groups)
    assert all(second == pytest.approx(0.1 * first) for first, second in seen)
    assert max(first for first, _ in seen) == pytest.approx(2.0, rel=0.1)
    cyclic = {"type": "CyclicLR", "args": {"base_lr": 0.1, "max_lr": 2.0, "step_size_up": 3}, "interval": "step"}
    seen = rates(cyclic, groups=groups)
    assert all(second == pytest.approx(0.1 * first) for first, second in seen)
    assert [first for first, _ in seen[:4]] == pytest.approx([0.1, 0.1 + 1.9 / 3, 0.1 + 3.8 / 3, 2.0])
    assert not [each for each in caplog.messages if "eta_min" in each]
    rates({"type": "CosineAnnealingLR", "args": {"eta_min": 0.2}}, groups=groups)
    assert "eta_min: 0.2 is the least rate of all groups" in caplog.text


def test_one_cycle_has_the_rate_of_the_optimizer_unless_another_is_stated(caplog):
    assert max(rates("OneCycleLR")) == pytest.approx(max(rates({"type": "OneCycleLR", "args": {"max_lr": 1.0}})))
    assert not caplog.records
    assert max(rates({"type": "OneCycleLR", "args": {"max_lr": 2.0}})) == pytest.approx(2.0, rel=0.1)
    assert "optimizer.args.lr: 1.0 has no effect, as OneCycleLR sets all rates" in caplog.text


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"type": "poly", "warmup": 10}, "warm-up and chained parts take 10 of the run's 10 moves"),
        ({"type": "OneCycleLR", "args": {"max_lr": 1.0}, "warmup": 2}, "OneCycleLR cannot be part of a chain"),
        ([{"type": "poly", "moves": 2, "interval": "epoch"}, {"type": "poly", "interval": "step"}], "A chain has one"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(section, message):
    with pytest.raises(ConfigError, match=message):
        rates(section)


# Every curve that is laid out for the run, alone, after a warm-up and in a chain.
FOLLOW_THE_RUN = {
    "poly": {"type": "poly"},
    "PolynomialLR": {"type": "PolynomialLR", "args": {"power": 2.0}},
    "LinearLR": {"type": "LinearLR", "args": {"start_factor": 1.0, "end_factor": 0.1}},
    "LinearLR to zero": {"type": "LinearLR", "args": {"start_factor": 1.0, "end_factor": 0.0}, "interval": "step"},
    "CosineAnnealingLR": {"type": "CosineAnnealingLR"},
    "CosineAnnealingLR per step": {"type": "CosineAnnealingLR", "args": {"eta_min": 0.1}, "interval": "step"},
    "OneCycleLR": {"type": "OneCycleLR", "args": {"max_lr": 2.0}},
    "warm-up and cosine": {"type": "CosineAnnealingLR", "interval": "step", "warmup": 3},
    "warm-up and poly": {"type": "poly", "warmup": 7},
    "constant and cosine": [
        {"type": "ConstantLR", "args": {"factor": 0.1, "total_iters": 100}, "moves": 1},
        {"type": "CosineAnnealingLR"},
    ],
    "three parts": [
        {"type": "ExponentialLR", "args": {"gamma": 0.9}, "moves": 4, "warmup": 2, "interval": "step"},
        {"type": "LinearLR", "moves": 2},
        {"type": "PolynomialLR"},
    ],
}
# Curves that do not depend on the length of the run.
CONTINUE = {
    "StepLR": {"type": "StepLR", "args": {"step_size": 2}},
    "MultiStepLR": {"type": "MultiStepLR", "args": {"milestones": [1, 3]}},
    "ExponentialLR": {"type": "ExponentialLR", "args": {"gamma": 0.5}, "interval": "step"},
    "ConstantLR": {"type": "ConstantLR", "args": {"factor": 0.1, "total_iters": 3}},
    "LinearLR of its own length": {"type": "LinearLR", "args": {"start_factor": 0.1, "total_iters": 2}},
    "CosineAnnealingWarmRestarts": {"type": "CosineAnnealingWarmRestarts", "args": {"T_0": 1}},
    "CyclicLR": {"type": "CyclicLR", "args": {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 3}, "interval": "step"},
    "ReduceLROnPlateau": {"type": "ReduceLROnPlateau", "args": {"patience": 0}},
    "warm-up and steps": {"type": "MultiStepLR", "args": {"milestones": [3, 9]}, "interval": "step", "warmup": 12},
    "warm-up and restarts": {
        "type": "CosineAnnealingWarmRestarts",
        "args": {"T_0": 4},
        "interval": "step",
        "warmup": 2,
    },
    "cosine with a longer plan": {"type": "CosineAnnealingLR", "args": {"T_max": 9}},
}


def rescaled(section):
    parts = [dict(part) for part in (section if isinstance(section, list) else [section])]
    parts[0]["on_more_epochs"] = "rescale"
    return parts if isinstance(section, list) else parts[0]


@pytest.mark.parametrize("epochs", [5, 2])
@pytest.mark.parametrize("name", FOLLOW_THE_RUN)
def test_another_length_of_the_run_is_refused_with_both_repairs(name, epochs):
    course = Course(FOLLOW_THE_RUN[name], epochs=3)
    course.run(last=2)
    with pytest.raises(CheckpointError, match=r"was built for \w+ \d+, the config's for \d+\.") as caught:
        Course(FOLLOW_THE_RUN[name], epochs=epochs).restore(course.saved(), 2)
    assert '"on_more_epochs": "rescale" in lr_scheduler' in str(caught.value)
    assert "-c with --resume FILE" in str(caught.value)


@pytest.mark.parametrize(("before", "epochs"), [(2, 5), (4, 3)])
@pytest.mark.parametrize("name", FOLLOW_THE_RUN)
def test_rescale_continues_on_the_curve_of_the_new_length_to_the_last_bit(name, before, epochs):
    section = rescaled(FOLLOW_THE_RUN[name])
    whole = Course(section, epochs=epochs).run()
    course = Course(section, epochs=before)
    course.run(last=2)
    longer = Course(section, epochs=epochs).restore(course.saved(), 2)
    first = longer.run(2, 3)  # killed after one more epoch, and resumed once more
    rest = Course(section, epochs=epochs).restore(longer.saved(), 3).run(3)
    assert [*first, *rest] == whole[2 * STEPS_PER_EPOCH :]
    assert all(rate > 0 for groups in first for rate, _ in groups)


@pytest.mark.parametrize("name", FOLLOW_THE_RUN)
def test_a_run_that_is_over_is_not_laid_out_anew(name):
    section = rescaled(FOLLOW_THE_RUN[name])
    course = Course(section, epochs=4)
    course.run()
    Course(section, epochs=3).restore(course.saved(), 4)


@pytest.mark.parametrize("rule", ["refuse", "rescale"])
@pytest.mark.parametrize("name", CONTINUE)
def test_a_curve_without_a_length_continues(name, rule):
    section = {**CONTINUE[name], "on_more_epochs": rule}
    whole = Course(section, epochs=5, monitor="min val_loss").run()
    for stop in (1, 3):
        course = Course(section, epochs=3, monitor="min val_loss")
        course.run(last=stop)
        longer = Course(section, epochs=5, monitor="min val_loss").restore(course.saved(), stop)
        assert longer.run(stop) == whole[stop * STEPS_PER_EPOCH :]


@pytest.mark.parametrize("name", {**FOLLOW_THE_RUN, **CONTINUE})
def test_a_checkpoint_of_an_earlier_version_continues_at_its_length_and_is_refused_at_another(name):
    section = {**FOLLOW_THE_RUN, **CONTINUE}[name]
    course = Course(section, epochs=3, monitor="min val_loss")
    expected = course.run()
    course = Course(section, epochs=3, monitor="min val_loss")
    course.run(last=2)
    saved = course.saved()
    del saved["schedule"]["moves_of_run"]
    restored = Course(section, epochs=3, monitor="min val_loss").restore(saved, 2)
    assert restored.run(2) == expected[2 * STEPS_PER_EPOCH :]
    if name in FOLLOW_THE_RUN:
        with pytest.raises(CheckpointError, match="A schedule can only be continued at its original length"):
            Course(section, epochs=4).restore(saved, 2)


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        ({"type": "poly", "args": {"total_iters": 4}}, "PolyLR is built for 4 moves and makes 10 in this run"),
        ({"type": "PolynomialLR", "args": {"total_iters": 1}}, r"1 moves and makes 2 in this run \(one per epoch\)"),
        ({"type": "LinearLR", "args": {"end_factor": 0.0, "total_iters": 1}}, "would be 0. Leave out total_iters"),
        (
            {"type": "OneCycleLR", "args": {"max_lr": 1.0, "total_steps": 9}},
            r"lr_scheduler\.args\.total_steps: OneCycleLR is built for 9 moves and makes 10 in this run",
        ),
        (
            {"type": "OneCycleLR", "args": {"max_lr": 1.0, "epochs": 1, "steps_per_epoch": 5}},
            r"lr_scheduler\.args\.epochs: .* no learning rate for the others\. Leave out epochs and steps_per_epoch",
        ),
        (
            [{"type": "poly", "args": {"total_iters": 2}, "moves": 4}, {"type": "StepLR", "args": {"step_size": 9}}],
            r"lr_scheduler\.0\.args\.total_iters: PolyLR is built for 2 moves and makes 4",
        ),
        ({"type": "poly", "args": {"total_iters": 6}, "warmup": 3}, "built for 6 moves and makes 7"),
    ],
)
def test_a_stated_length_that_leaves_steps_without_a_rate_is_refused(section, fault):
    if isinstance(section, list):
        section[0]["interval"] = "step"
    with pytest.raises(ConfigError, match=fault) as caught:
        Course(section)
    assert "or train for fewer epochs" in str(caught.value)


@pytest.mark.parametrize(
    ("section", "warning"),
    [
        ({"type": "CosineAnnealingLR", "args": {"T_max": 2}}, "built for 2 moves and makes 5 .* rises again"),
        ({"type": "CosineAnnealingLR", "args": {"T_max": 5}, "warmup": 1}, "built for 5 moves and makes 4 .* cut off"),
        ({"type": "CosineAnnealingLR", "args": {"T_max": 5}, "interval": "step"}, r"makes 25 .*\(one per step\)"),
        ({"type": "LinearLR", "args": {"total_iters": 7}}, "cut off"),
        ({"type": "OneCycleLR", "args": {"max_lr": 1.0, "total_steps": 26}}, "26 moves and makes 25 .* cut off"),
        (
            {"type": "CosineAnnealingWarmRestarts", "args": {"T_0": 1, "T_mult": 3}},
            r"lr_scheduler\.args\.T_0: .* after 5 moves \(one per epoch\), would end after 13",
        ),
        (
            [{"type": "CosineAnnealingLR", "args": {"T_max": 1}, "moves": 3}, {"type": "CosineAnnealingLR"}],
            r"lr_scheduler\.0\.args\.T_max: CosineAnnealingLR is built for 1 moves and makes 3",
        ),
    ],
)
def test_a_stated_length_that_cuts_the_curve_or_lets_it_rise_again_is_said(section, warning, caplog):
    Course(section, epochs=5).run()
    assert re.search(warning, caplog.text)


@pytest.mark.parametrize(
    "section",
    [
        *FOLLOW_THE_RUN.values(),
        {"type": "CosineAnnealingLR", "args": {"T_max": 5}},
        {"type": "CosineAnnealingWarmRestarts", "args": {"T_0": 1, "T_mult": 4}},
        {"type": "LinearLR", "args": {"start_factor": 0.1, "total_iters": 2}},
        {"type": "ConstantLR", "args": {"factor": 0.1, "total_iters": 99}},
    ],
)
def test_a_length_that_fits_is_not_mentioned(section, caplog):
    Course(section, epochs=5).run()
    assert not [each for each in caplog.messages if "moves" in each]


@pytest.mark.parametrize("rule", ["refuse", "rescale"])
def test_a_stated_length_that_the_run_outgrows_is_refused(rule):
    section = {"type": "CosineAnnealingLR", "args": {"T_max": 3}, "on_more_epochs": rule}
    course = Course(section, epochs=3)
    course.run()
    message = r"lr_scheduler\.args\.T_max 3 is shorter than the run, which shall now have 5 moves instead of 3"
    with pytest.raises(CheckpointError, match=message):
        Course(section, epochs=5).restore(course.saved(), 3)
    with pytest.raises(ConfigError, match="would be 0"):  # before anything is restored
        Course({"type": "poly", "args": {"total_iters": 15}, "on_more_epochs": rule}, epochs=5)


def test_a_stated_length_that_was_always_too_short_continues_in_the_same_run():
    section = {"type": "CosineAnnealingLR", "args": {"T_max": 2}}
    course = Course(section, epochs=5)
    expected = course.run()
    course = Course(section, epochs=5)
    course.run(last=3)
    assert Course(section, epochs=5).restore(course.saved(), 3).run(3) == expected[3 * STEPS_PER_EPOCH :]


def test_other_steps_of_an_epoch_are_refused():
    for rule, message in (
        ("refuse", "built for total_iters 15, the config's for 12"),
        ("rescale", "has made 10 moves"),
    ):
        section = {"type": "poly", "on_more_epochs": rule}
        course = Course(section, epochs=3)
        course.run(last=2)
        with pytest.raises(CheckpointError, match=message):
            Course(section, epochs=3, steps_per_epoch=4).restore(course.saved(), 2)
    by_epoch = {"type": "CosineAnnealingLR"}  # its length counts epochs
    course = Course(by_epoch, epochs=3)
    course.run(last=2)
    Course(by_epoch, epochs=3, steps_per_epoch=4).restore(course.saved(), 2)


@pytest.mark.parametrize("rule", ["refuse", "rescale"])
@pytest.mark.parametrize("section", [{"type": "poly"}, {"type": "OneCycleLR", "args": {"max_lr": 2.0}}])
def test_fewer_epochs_of_more_steps_are_refused_although_the_length_is_the_same(section, rule):
    section = {**section, "on_more_epochs": rule}
    course = Course(section, epochs=4)
    course.run(last=1)
    with pytest.raises(CheckpointError, match=r"has made 5 moves and 10 are left, but a run of this config has 20: .*"):
        Course(section, epochs=2, steps_per_epoch=10).restore(course.saved(), 1)
    steps = {"type": "StepLR", "args": {"step_size": 3}, "interval": "step"}  # it knows no length
    course = Course(steps, epochs=4)
    course.run(last=1)
    Course(steps, epochs=2, steps_per_epoch=10).restore(course.saved(), 1)


def test_rescale_holds_for_groups_with_rates_of_their_own():
    def groups(weight):
        return [{"params": [weight]}, {"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1, "lr_scale": 0.1}]

    for section in ({"type": "OneCycleLR", "args": {"max_lr": 2.0}}, {"type": "poly", "warmup": 2}):
        section["on_more_epochs"] = "rescale"
        course = Course(section, epochs=2, groups=groups)
        course.run()
        longer = Course(section, epochs=4, groups=groups).restore(course.saved(), 2)
        assert longer.run(2) == Course(section, epochs=4, groups=groups).run()[2 * STEPS_PER_EPOCH :]


def test_rescale_moves_the_momentum_of_adam_and_of_each_cycle_with_the_rate():
    def course(epochs, moves):
        optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=0.1, weight_decay=0.5)
        scheduler = lr_scheduler.OneCycleLR(optimizer, 0.4, total_steps=epochs * 3)
        schedule = LearningRateSchedule(scheduler, interval="step", on_more_epochs="rescale")
        for _ in range(moves):
            schedule.after("step")
        return optimizer, schedule

    (optimizer, schedule), (whole, _), (longer_optimizer, longer) = course(2, 6), course(4, 6), course(4, 0)
    optimizer.param_groups[0]["weight_decay"] = 0.25  # no business of a schedule
    longer_optimizer.load_state_dict(plain(optimizer.state_dict()))
    longer.load_state_dict(plain(schedule.state_dict()))
    found, expected = longer_optimizer.param_groups[0], whole.param_groups[0]
    assert all(found[name] == expected[name] for name in ("lr", "betas", "max_lr", "min_lr", "initial_lr"))
    assert found["weight_decay"] == 0.25


class Staircase(lr_scheduler.LRScheduler):
    """A scheduler of a user, which keeps the length of the run under a name that nobody knows."""

    def __init__(self, optimizer, total_steps):
        self.flight = total_steps
        super().__init__(optimizer)

    def get_lr(self):
        return [rate * (1 - (4 * self.last_epoch // self.flight) / 4) for rate in self.base_lrs]


@pytest.mark.parametrize("rule", ["refuse", "rescale"])
def test_a_scheduler_of_a_user_that_takes_the_length_of_the_run_follows_the_same_rules(rule):
    section = {"type": "Staircase", "interval": "step", "on_more_epochs": rule}

    def course(epochs):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        built = combine_schedulers(
            section,
            optimizer,
            lambda _, given: Staircase(optimizer, given["total_steps"]),
            epochs=epochs,
            steps_per_epoch=4,
        )
        return optimizer, built

    optimizer, schedule = course(2)
    for _ in range(4):
        schedule.after("step")
    longer_optimizer, longer = course(4)
    longer_optimizer.load_state_dict(optimizer.state_dict())
    if rule == "refuse":
        with pytest.raises(CheckpointError, match="was built for moves 8, the config's for 16"):
            longer.load_state_dict(schedule.state_dict(), moves_left=12)
    else:
        longer.load_state_dict(schedule.state_dict(), moves_left=12)
        assert longer_optimizer.param_groups[0]["lr"] == 0.75


@pytest.mark.parametrize("rule", ["refuse", "rescale"])
def test_chains_made_in_python_are_looked_into(rule):
    def course(length):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        parts = [
            lr_scheduler.ChainedScheduler([
                lr_scheduler.ConstantLR(optimizer, 0.5, total_iters=2),
                lr_scheduler.CosineAnnealingLR(optimizer, length),
            ])
        ]  # fmt: skip
        return LearningRateSchedule(parts[0], on_more_epochs=rule)

    schedule, longer, whole = course(4), course(8), course(8)
    for _ in range(4):
        schedule.after("epoch")
        whole.after("epoch")
    if rule == "refuse":
        with pytest.raises(CheckpointError, match="ChainedScheduler was built for T_max 4, the config's for 8"):
            longer.load_state_dict(schedule.state_dict())
    else:
        longer.load_state_dict(schedule.state_dict())
        assert longer.scheduler.get_last_lr() == whole.scheduler.get_last_lr()


def test_the_rule_for_more_epochs_is_said_once():
    parts = [{"type": "poly", "moves": 2, "on_more_epochs": "refuse"}, {"type": "poly", "on_more_epochs": "rescale"}]
    with pytest.raises(ConfigError, match="values of on_more_epochs refuse and rescale"):
        Course(parts)
