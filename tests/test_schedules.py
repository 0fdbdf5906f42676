"""The course of the learning rate: warm-up, chains, poly, and groups with rates of their own."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from config.objects import instantiate
from trainer import SECTIONS
from trainer.optim.schedules import combine_schedulers
from utils.errors import ConfigError


def rates(section, epochs=2, steps_per_epoch=5, monitor="off", groups=None):
    """The learning rate of the first group (and of all, where there are several) before each step."""
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD(groups(weight) if groups else [weight], lr=1.0)

    def build_part(path, defaults):
        return instantiate(
            {"lr_scheduler": section}, path, SECTIONS, runtime={"optimizer": optimizer}, defaults=defaults
        )

    schedule = combine_schedulers(
        section, optimizer, build_part, epochs=epochs, steps_per_epoch=steps_per_epoch, monitor=monitor
    )
    seen = []
    for _ in range(epochs):
        for _ in range(steps_per_epoch):
            now = [float(group["lr"]) for group in optimizer.param_groups]
            seen.append(now if len(now) > 1 else now[0])
            optimizer.step()
            schedule.after("step")
        schedule.after("epoch", {"val_loss": 1.0})
    return seen


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


def test_one_cycle_keeps_the_rates_of_groups_apart():
    def groups(weight):
        return [{"params": [weight]}, {"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1, "lr_scale": 0.1}]

    seen = rates({"type": "OneCycleLR", "args": {"max_lr": 2.0}}, groups=groups)
    assert all(second == pytest.approx(0.1 * first) for first, second in seen)
    assert max(first for first, _ in seen) == pytest.approx(2.0, rel=0.1)


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


def test_a_state_goes_on_in_a_chain():
    section = {"type": "CosineAnnealingLR", "warmup": 3, "interval": "step"}
    weight = nn.Parameter(torch.zeros(1))

    def fresh():
        optimizer = torch.optim.SGD([weight], lr=1.0)

        def build_part(path, defaults):
            return instantiate(
                {"lr_scheduler": section}, path, SECTIONS, runtime={"optimizer": optimizer}, defaults=defaults
            )

        return optimizer, combine_schedulers(section, optimizer, build_part, epochs=1, steps_per_epoch=10)

    optimizer, schedule = fresh()
    assert isinstance(schedule.scheduler, lr_scheduler.SequentialLR)
    for _ in range(5):
        optimizer.step()
        schedule.after("step")
    other_optimizer, other = fresh()
    other_optimizer.load_state_dict(optimizer.state_dict())
    other.load_state_dict(schedule.state_dict())
    for _ in range(4):
        for one, two in ((optimizer, schedule), (other_optimizer, other)):
            one.step()
            two.after("step")
        assert optimizer.param_groups[0]["lr"] == other_optimizer.param_groups[0]["lr"]
