"""Which weights learn how fast, and which decay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from utils.errors import ConfigError

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
Group = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """How the weights of a name differ from the others.

    Attributes:
        match: Names of parts or weights, with `*` and `?`.
        lr_scale: Factor of their learning rate.
        weight_decay: Their own weight decay; None: the optimizer's.
    """

    match: str
    lr_scale: float = 1.0
    weight_decay: float | None = None

    def applies_to(self, name: str) -> bool:
        """Whether the rule is for a weight of this name, or for a part that it belongs to."""
        parts = name.split(".")
        return any(fnmatchcase(".".join(parts[: end + 1]), self.match) for end in range(len(parts)))


def parameter_groups(
    model: nn.Module,
    lr: float | None,
    *,
    decay_norm_and_bias: bool = True,
    rules: Sequence[Rule] = (),
    layer_decay: float | None = None,
) -> list[Group]:
    """Sort the weights of a network into groups of an optimizer.

    Args:
        model: The network.
        lr: The optimizer's learning rate, where it has one: groups with another factor get their own.
        decay_norm_and_bias: Whether weights of norm layers and biases decay as others do.
        rules: The first that applies to a weight counts.
        layer_decay: Each layer learns so much slower than the one behind it (arXiv:2003.10555, section 3); a layer is
            a numbered part like `encoder.stages.2`, else a part like `head`; in the order of the network.

    Returns:
        Groups with `params` and what differs from the optimizer's own arguments, in the order of first appearance.

    Raises:
        ConfigError: A rule applies to no weight, or the optimizer has no learning rate to scale.
    """
    _check(model, rules)
    kept = set() if decay_norm_and_bias else _norms_and_biases(model)
    depths = _layer_scales(model, layer_decay) if layer_decay is not None else {}
    groups: dict[tuple[float, float | None], Group] = {}
    for name, weight in model.named_parameters():
        rule = next((rule for rule in rules if rule.applies_to(name)), Rule(name))
        scale = rule.lr_scale * depths.get(name, 1.0)
        decay = rule.weight_decay if rule.weight_decay is not None else (0.0 if name in kept else None)
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


def scales(groups: Sequence[Mapping[str, Any]]) -> list[float]:
    """The factor of each group's learning rate."""
    return [float(group.get("lr_scale", 1.0)) for group in groups]


def _check(model: nn.Module, rules: Sequence[Rule]) -> None:
    names = [name for name, _ in model.named_parameters()]
    for number, rule in enumerate(rules):
        if not any(rule.applies_to(name) for name in names):
            parts = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(
                f'optimizer.groups.{number}.match: "{rule.match}" is the name of no part and no weight of the network. '
                f"Its parts are {parts}. Name one, or several with *."
            )


def _norms_and_biases(model: nn.Module) -> set[str]:
    """Names of the weights of norm layers, and of every bias."""
    names = {name for name, _ in model.named_parameters() if name.rpartition(".")[2].startswith("bias")}
    for path, module in model.named_modules():
        if isinstance(module, NORMS):
            names |= {f"{path}.{name}" if path else name for name, _ in module.named_parameters(recurse=False)}
    return names


def _layer_scales(model: nn.Module, decay: float) -> dict[str, float]:
    """The factor of each weight's learning rate by the depth of its layer; 1 for the last layer."""
    layers: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        layers.setdefault(_layer(name), []).append(name)
    last = len(layers) - 1
    return {name: decay ** (last - depth) for depth, names in enumerate(layers.values()) for name in names}


def _layer(name: str) -> str:
    """The part that counts as a layer: up to the first number in the name, else the first part."""
    parts = name.split(".")
    numbered = [position for position, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbered[0] + 1]) if numbered else parts[0]


@dataclass(frozen=True)
class Freezing:
    """What is frozen, and until when.

    Attributes:
        patterns: Names of parts or weights, with `*` and `?`, e.g. `encoder`, `encoder.stages.0.*`, `*.bias`.
        until_epoch: All learns from this epoch on, counted from 1; None: never.
    """

    patterns: Sequence[str] = ()
    until_epoch: int | None = None

    def check(self, model: nn.Module) -> None:
        """Refuse a pattern that names nothing.

        Raises:
            ConfigError: With the parts that there are.
        """
        names = [name for name, _ in model.named_modules() if name] + [name for name, _ in model.named_parameters()]
        for pattern in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                parts = ", ".join(name for name, _ in model.named_children())
                raise ConfigError(
                    f'trainer.freeze: "{pattern}" is the name of no part and no weight of the network. Its parts are '
                    f"{parts}. Name one, or several with *: {next(iter(names), 'part')}.*"
                )
        if self.patterns and self.until_epoch is None and all(self._matches(name) for name, _ in _weights(model)):
            raise ConfigError(
                f"trainer.freeze: {list(self.patterns)} freezes every weight, so that nothing would learn. Freeze "
                "less, or set trainer.unfreeze_epoch."
            )

    def is_frozen(self, epoch: int) -> bool:
        """Whether anything is frozen in an epoch, counted from 1."""
        return bool(self.patterns) and (self.until_epoch is None or epoch < self.until_epoch)

    def apply(self, model: nn.Module, epoch: int) -> None:
        """Put weights and norm layers in the state they have in `epoch`; call after each `model.train()`."""
        if not self.patterns:
            return
        frozen = self.is_frozen(epoch)
        for name, weight in model.named_parameters():
            if self._matches(name):
                weight.requires_grad_(not frozen)
        if frozen:
            for name, module in model.named_modules():
                if isinstance(module, _NormBase) and self._matches(name):
                    module.eval()

    def _matches(self, name: str) -> bool:
        """Whether a pattern names it, or a part that it belongs to."""
        parts = name.split(".")
        wholes = [".".join(parts[: end + 1]) for end in range(len(parts))]
        return any(fnmatchcase(whole, pattern) for whole in wholes for pattern in self.patterns)


NOTHING_FROZEN = Freezing()


def _weights(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(model.named_parameters())
