"""Names of saved weights, which other programs begin with a prefix of their own: `model.`, `_orig_mod.`, `net.`."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_COMPILED = "_orig_mod"  # torch.compile puts it before the names of each part that it compiles
_SHOWN = 3

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class FittedNames:
    """Names of saved weights as a network has them.

    Attributes:
        names: Saved name -> name in the network, or the saved one if nothing had to be changed.
        change: The change in words; empty if there was none.
        rivals: Prefixes without which equally many weights would fit, so that none was chosen.
    """

    names: dict[str, str]
    change: str = ""
    rivals: Sequence[str] = ()


def fit_names(saved: Shapes, wanted: Shapes) -> FittedNames:
    """Find the prefix by which saved names differ from those of a network.

    A prefix is left out, or put in front, if more weights fit by name and shape then, and at least half of either side.

    Args:
        saved: Name -> shape of each saved weight.
        wanted: Name -> shape of each weight of the network.
    """
    shapes = {name: tuple(shape) for name, shape in saved.items()}
    network = {name: tuple(shape) for name, shape in wanted.items()}
    # Without the marks of torch.compile, unless the network has such parts.
    is_marked = not any(_COMPILED in name.split(".") for name in network)
    plain = {name: _without_marks(name) if is_marked else name for name in shapes}
    unmarked = {plain[name]: shape for name, shape in shapes.items()}
    left_out = Counter(
        prefix for name, shape in unmarked.items() for prefix, rest in _splits(name) if network.get(rest) == shape
    )
    put_in_front = Counter(
        prefix for name, shape in network.items() for prefix, rest in _splits(name) if unmarked.get(rest) == shape
    )
    fitting = sum(network.get(name) == shape for name, shape in unmarked.items())
    most = max([fitting, *left_out.values(), *put_in_front.values()], default=0)
    best = [(prefix, count) for count in (left_out, put_in_front) for prefix in count if count[prefix] == most]
    is_changed = any(name != new for name, new in plain.items())
    change = f'"{_COMPILED}.", the mark of torch.compile, was left out of the names' if is_changed else ""
    if most <= fitting or 2 * most < min(len(unmarked), len(network)):
        return FittedNames(plain, change)
    if len(best) > 1:
        return FittedNames(plain, change, [prefix for prefix, _ in best])
    prefix = best[0][0]
    if left_out[prefix] == most:
        taken = {new for new in plain.values() if not new.startswith(prefix)}
        names = {
            name: new.removeprefix(prefix) if new.removeprefix(prefix) not in taken else new
            for name, new in plain.items()
        }
        said = f'the prefix "{prefix}" was left out of the names'
    else:
        names = {name: prefix + new for name, new in plain.items()}
        said = f'the prefix "{prefix}" was put in front of the names'
    return FittedNames(names, f"{change}; {said}" if change else said)


def first_names(names: Sequence[str]) -> str:
    """Return the first three names as text."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _without_marks(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Yield every division of a dotted name into a prefix, with its dot, and the rest."""
    parts = name.split(".")
    for count in range(1, len(parts)):
        yield ".".join(parts[:count]) + ".", ".".join(parts[count:])
