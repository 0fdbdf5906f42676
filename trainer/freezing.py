"""Parts of a network that do not learn: their weights and the statistics of their norm layers stay as they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from utils.errors import ConfigError


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
