"""A small registry and a small configuration for the tests of `config`, and classes to name in them."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from utils.errors import ConfigError
from utils.registry import OptionGroup, Section

CALLED = []
"""Names of the classes that were built."""


class Net(nn.Module):
    """A network with every kind of argument."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        width: Annotated[int, Field(gt=0, le=512)] = 8,
        dropout: "Annotated[float, Field(ge=0, lt=1)]" = 0.0,
        backbone: Literal["plain", "resnet18"] = "plain",
        channels: Sequence[int] = (4, 8),
        size: int | tuple[int, int] | None = None,
        names: dict[str, float] | None = None,
        norm: Callable[..., Any] = nn.BatchNorm2d,
        table: Tensor | None = None,
        deep: bool = False,
        untyped=3,
        untyped_switch=False,
    ) -> None:
        super().__init__()
        CALLED.append("Net")
        if width == 13:
            raise ValueError("width 13 brings bad luck")
        if width == 14:
            raise ConfigError("width 14 is odd in its own way. Set width to 16.")
        if width == 15:
            raise AssertionError
        self.arguments = {"num_classes": num_classes, "in_channels": in_channels, "width": width, "size": size}
        self.layer = nn.Linear(in_channels, num_classes)


class WideNet(Net):
    """A network that leaves most to its base."""

    def __init__(self, factor: int = 2, **rest) -> None:
        super().__init__(width=8 * factor, **rest)


class OpenNet(nn.Module):
    """A network that takes anything."""

    def __init__(self, **anything) -> None:
        super().__init__()
        self.anything = anything


class Strict(nn.Module):
    """A network that needs what only the file can say."""

    def __init__(self, depth: int, label: str) -> None:
        super().__init__()
        self.depth, self.label = depth, label


class Sum(nn.Module):
    """A weighted sum."""

    def __init__(self, losses: list[nn.Module], weights: list[float]) -> None:
        super().__init__()
        self.losses, self.weights = losses, weights


class Loss(nn.Module):
    """A loss that knows its classes."""

    def __init__(self, ignore_index: int | None = None, *, smooth: float = 1.0, class_weights: Any = None) -> None:
        super().__init__()
        self.ignore_index, self.smooth, self.class_weights = ignore_index, smooth, class_weights


class Score:
    """Base of the metrics."""


class Accuracy(Score):
    """A metric."""

    def __init__(self, num_classes: int, exclude_background: bool = False) -> None:
        self.num_classes, self.exclude_background = num_classes, exclude_background


class Loader:
    """A loader with nested parts."""

    def __init__(
        self,
        path: str,
        *,
        batch_size: Annotated[int, Field(ge=1)] = 1,
        transforms: Sequence[Any] = (),
        sampler: Any = None,
        num_classes: int | None = None,
        in_channels: int = 3,
        ignore_index: int | None = None,
        seed: int = 0,
        validation_split: float = 0.0,
    ) -> None:
        CALLED.append("Loader")
        self.path, self.transforms, self.sampler, self.seed = path, transforms, sampler, seed


@dataclass(frozen=True)
class SizeOptions(OptionGroup):
    """An option group."""

    height: Annotated[int, Field(ge=1, description="Rows.")] = 8
    scales: Annotated[tuple[float, ...], Field(description="Zoom of each copy.")] = (1.0,)


@dataclass(frozen=True)
class OrderOptions(OptionGroup):
    """An option group with a field that has no default."""

    order: Literal["forward", "backward"]
    seed: int = 0
    tags: list[str] = field(default_factory=list)


class GroupLoader(Loader):
    """A loader with option groups, one of them with a default that differs from that of its fields."""

    def __init__(self, order: OrderOptions, *, sizes: SizeOptions = SizeOptions(height=16), path: str = "x") -> None:
        super().__init__(path)
        self.order, self.sizes = order, sizes


class NamedGroupLoader(GroupLoader):
    """A loader that leaves its groups to its base."""

    def __init__(self, label: str = "none", **rest) -> None:
        super().__init__(**rest)
        self.label = label


class Transform:
    """Base of the transforms."""


class Flip(Transform):
    """A transform."""

    def __init__(self, p: Annotated[float, Field(ge=0, le=1)] = 0.5) -> None:
        self.p = p


class OneOf(Transform):
    """A transform that holds transforms."""

    def __init__(self, transforms: Sequence[Transform], p: float = 0.5) -> None:
        self.transforms, self.p = transforms, p


class Loop:
    """A trainer."""

    def __init__(self, model: nn.Module, *, plan: Any) -> None:
        self.model, self.plan = model, plan


class PatientLoop(Loop):
    """A trainer of one's own."""

    def __init__(self, *, patience: int = 3, **parts: Any) -> None:
        super().__init__(**parts)
        self.patience = patience


def make_net(num_classes: int) -> nn.Module:
    """A function in the registry."""
    return nn.Linear(1, num_classes)


def make_wrong():
    """A function that does not keep what its section expects."""
    return 5


REGISTRY = {
    "arch": Section(
        "torch.nn:Module",
        {
            "Net": "tests.support.config_samples:Net",
            "WideNet": "tests.support.config_samples:WideNet",
            "OpenNet": "tests.support.config_samples:OpenNet",
            "Strict": "tests.support.config_samples:Strict",
            "make_net": "tests.support.config_samples:make_net",
            "make_wrong": "tests.support.config_samples:make_wrong",
            "Absent": "no_such_package:Net",
        },
        roots=("torchvision",),
    ),
    "loss": Section(
        "torch.nn:Module",
        {"Loss": "tests.support.config_samples:Loss", "WeightedLoss": "tests.support.config_samples:Sum"},
        roots=("torch.nn",),
        nested={"losses": "loss"},
    ),
    "metrics": Section("tests.support.config_samples:Score", {"accuracy": "tests.support.config_samples:Accuracy"}),
    "data_loader": Section(
        "tests.support.config_samples:Loader",
        {
            "Loader": "tests.support.config_samples:Loader",
            "GroupLoader": "tests.support.config_samples:GroupLoader",
            "NamedGroupLoader": "tests.support.config_samples:NamedGroupLoader",
        },
        nested={"transforms": "transform"},
    ),
    "transform": Section(
        "tests.support.config_samples:Transform",
        {"Flip": "tests.support.config_samples:Flip", "OneOf": "tests.support.config_samples:OneOf"},
        nested={"transforms": "transform"},
    ),
    "optimizer": Section("torch.optim:Optimizer", roots=("torch.optim",), shortcuts=("torch.optim",)),
    "lr_scheduler": Section(
        "torch.optim.lr_scheduler:LRScheduler",
        roots=("torch.optim.lr_scheduler",),
        shortcuts=("torch.optim.lr_scheduler",),
    ),
    "trainer": Section(
        "tests.support.config_samples:Loop",
        {"Trainer": "tests.support.config_samples:Loop", "Patient": "tests.support.config_samples:PatientLoop"},
    ),
}

_CONFIG = {
    "name": "sample",
    "seed": 1,
    "arch": {"type": "Net", "args": {"width": 4, "dropout": 0.5}},
    "train_loader": {"type": "Loader", "args": {"path": "x", "batch_size": 2, "transforms": ["Flip"]}},
    "optimizer": {"type": "SGD", "args": {"lr": 0.1, "momentum": 0.9}},
    "loss": {"type": "Loss", "args": {"smooth": 1}},
    "metrics": ["accuracy"],
    "lr_scheduler": {"type": "StepLR", "args": {"step_size": 3}},
    "trainer": {"epochs": 2, "monitor": "min val_loss"},
}


def sample(**changes):
    """The sample configuration with sections replaced."""
    return {**copy.deepcopy(_CONFIG), **changes}


def parameters():
    """Something to optimise."""
    return [nn.Parameter(torch.zeros(1))]
