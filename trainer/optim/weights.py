"""The weights in training: which learn how fast, which decay, which are frozen, and their moving average."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # batch and instance norms have no public base

from utils.errors import ConfigError

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
Group = dict[str, Any]


def matches(name: str, pattern: str) -> bool:
    """Return whether a pattern with `*` and `?` names a weight, or a part of the network that it belongs to."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[: end + 1]), pattern) for end in range(len(parts)))


@dataclass(frozen=True)
class GroupRule:
    """Settings of the weights of a name, if they differ from those of the optimizer.

    Attributes:
        match: Names of parts or weights, with `*` and `?`.
        lr_scale: Factor of their learning rate.
        weight_decay: Their weight decay; None: the optimizer's.
    """

    match: str
    lr_scale: float = 1.0
    weight_decay: float | None = None


def parameter_groups(
    model: nn.Module,
    lr: float | None,
    *,
    decay_norm_and_bias: bool = True,
    rules: Sequence[GroupRule] = (),
    layer_decay: float | None = None,
) -> list[Group]:
    """Sort the weights of a network into groups of an optimizer.

    Args:
        model: The network.
        lr: The optimizer's learning rate, if it has one: groups with another factor get a separate rate.
        decay_norm_and_bias: Whether weights of norm layers and biases decay as others do.
        rules: The first that matches a weight counts.
        layer_decay: Factor by which each layer learns slower than the one behind it (arXiv:2003.10555, section 3); a
            layer is a numbered part like `encoder.stages.2`, else a part like `head`; in the order of the network. A
            weight without a number behind numbered ones of its part belongs to the last of these.

    Returns:
        Groups with `params` and the arguments that differ from the optimizer's, in the order of first appearance.

    Raises:
        ConfigError: A rule matches no weight, or the optimizer has no learning rate to scale.
    """
    names = [name for name, _ in model.named_parameters()]
    for number, rule in enumerate(rules):
        if not any(matches(name, rule.match) for name in names):
            parts = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(
                f'optimizer.groups.{number}.match: "{rule.match}" matches no part and no weight of the network. '
                f"Its parts are {parts}. Name one, or several with *."
            )
    undecayed: set[str] = set()
    if not decay_norm_and_bias:
        undecayed = {name for name in names if name.rpartition(".")[2].startswith("bias")}
        for path, module in model.named_modules():
            if isinstance(module, NORMS):
                undecayed |= {f"{path}.{name}" if path else name for name, _ in module.named_parameters(recurse=False)}
    # One group for each pair of factor and decay: most runs have one or two.
    scales = _layer_scales(names, layer_decay) if layer_decay is not None else {}
    groups: dict[tuple[float, float | None], Group] = {}
    for name, weight in model.named_parameters():
        rule = next((rule for rule in rules if matches(name, rule.match)), GroupRule(name))
        scale = rule.lr_scale * scales.get(name, 1.0)
        decay = rule.weight_decay if rule.weight_decay is not None else (0.0 if name in undecayed else None)
        if scale != 1.0 and lr is None:
            raise ConfigError(
                f'optimizer: "{name}" shall learn {scale:g} times as fast, but optimizer.args has no lr. Add it.'
            )
        group = groups.setdefault((scale, decay), {"params": []})
        group["params"].append(weight)
        if scale != 1.0:
            group |= {"lr": scale * (lr or 0.0), "lr_scale": scale}
        if decay is not None:
            group["weight_decay"] = decay
    return list(groups.values())


def _layer_scales(names: Sequence[str], decay: float) -> dict[str, float]:
    """Return the factor of each weight's learning rate by the depth of its layer; 1 for the last layer."""
    layers: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")  # a layer is the name up to its first number, else the first part
        number = next((position for position, part in enumerate(parts) if part.isdigit()), 0)
        layer = ".".join(parts[: number + 1])
        if not number and layer in layers:  # such as the norm after the blocks of a transformer: no earlier layer again
            layer = next(reversed(layers))
        layers.setdefault(layer, []).append(name)
    last = len(layers) - 1
    return {name: decay ** (last - depth) for depth, layer in enumerate(layers.values()) for name in layer}


@dataclass(frozen=True)
class Freezing:
    """The parts of a network that are not trained.

    Attributes:
        patterns: Names of parts or weights, with `*` and `?`, e.g. `encoder`, `encoder.stages.0.*`, `*.bias`.
        until_epoch: Everything is trained from this epoch on, counted from 1; None: never.
    """

    patterns: Sequence[str] = ()
    until_epoch: int | None = None

    def check(self, model: nn.Module) -> None:
        """Refuse a pattern that matches nothing.

        Raises:
            ConfigError: With the parts that there are.
        """
        weights = [name for name, _ in model.named_parameters()]
        names = [name for name, _ in model.named_modules() if name] + weights
        for pattern in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                parts = ", ".join(name for name, _ in model.named_children())
                raise ConfigError(
                    f'trainer.freeze: "{pattern}" matches no part and no weight of the network. Its parts are '
                    f"{parts}. Name one, or several with *: {next(iter(names), 'part')}.*"
                )
        if self.patterns and self.until_epoch is None and all(map(self.is_named, weights)):
            raise ConfigError(
                f"trainer.freeze: {list(self.patterns)} freezes every weight, so that nothing would learn. Freeze "
                "less, or set trainer.unfreeze_epoch."
            )

    def apply(self, model: nn.Module, epoch: int) -> bool:
        """Freeze or release weights and norm layers for an epoch, counted from 1; call it after each `model.train()`.

        Returns:
            Whether any weight was frozen or released.
        """
        is_frozen = self.until_epoch is None or epoch < self.until_epoch
        has_changed = False
        for name, weight in model.named_parameters():
            if self.is_named(name) and weight.requires_grad == is_frozen:
                weight.requires_grad_(not is_frozen)
                has_changed = True
        if is_frozen:
            for name, module in model.named_modules():
                if isinstance(module, _NormBase) and self._freezes(name, module):
                    module.eval()
        return has_changed

    def _freezes(self, name: str, norm: nn.Module) -> bool:
        """Return whether a pattern names a norm layer or all of its weights, so that its statistics stay, too."""
        weights = [f"{name}.{weight}" for weight, _ in norm.named_parameters(recurse=False)]
        return self.is_named(name) or (bool(weights) and all(map(self.is_named, weights)))

    def is_named(self, name: str) -> bool:
        """Return whether a pattern names a weight, or a part that it belongs to."""
        return any(matches(name, pattern) for pattern in self.patterns)


NOTHING_FROZEN = Freezing()


class WeightAverage:
    """An exponential moving average of the weights: smoother than the last step's, and mostly better.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that the first, random weights soon lose their
    influence (as in TensorFlow's ExponentialMovingAverage). Statistics of norm layers are averaged like weights;
    integers are copied.

    Args:
        model: The trained network, not wrapped for devices.
        decay: Share of the average that each update leaves.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Follow the network after a step of its optimizer."""
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages, currents = [], []
        ours, theirs = ([*each.parameters(), *each.buffers()] for each in (self.model, model))
        for average, current in zip(ours, theirs, strict=True):
            if average.is_floating_point():
                averages.append(average)
                currents.append(current)
            else:
                average.copy_(current)
        # torch has no public way to average many tensors in one call, which is several times faster on a GPU.
        torch._foreach_lerp_(averages, currents, share)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights by the names of the network, and the number of updates."""
        return {"state_dict": self.model.state_dict(), "updates": self.updates, "decay": self.decay}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self.model.load_state_dict(state["state_dict"])
        self.updates = state["updates"]
