"""A walk through a space that replaces each marker by a choice: the one place that knows how candidates are made."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from config.faults import join_path
from config.markers import is_marker
from search.space.drawn import Choice, Drawn
from search.space.outcomes import holds_marker

Identity = tuple[tuple[Choice, ...], str]
Fraction = Callable[[str, str, Mapping[str, Any]], float]
"""Path, branch and marker of a `Site` to a number in [0, 1)."""


@dataclass(frozen=True)
class Site:
    """A marker at which something is chosen.

    Attributes:
        path: JSON path of the value; that of a `$var` is in `$defs`.
        branch: For a marker that is a branch of a choice itself, the positions of this and of the choices around it,
            which share a path: "/0/2".
        conditions: The choices of a branch that led here, as in `Drawn.choices`. Together with the path they tell two
            markers apart.
        marker: Of one key.
    """

    path: str
    branch: str
    conditions: tuple[Choice, ...]
    marker: Mapping[str, Any]

    @property
    def identity(self) -> Identity:
        """The conditions and the path."""
        return self.conditions, self.path


@dataclass
class Walk:
    """One pass over a space.

    Attributes:
        definitions: The values of `$defs`.
        choose: Returns the choice at a site: the index of a branch, or a number.
        variables: The values of the `$var` that were met.
        sites: The sites that were met, in the order of the file.
        choices: The choice at each of them.
        label: JSON path and value of each choice, for people. A choice between branches that hold markers has a name of
            the branch; one whose branch is a marker itself is left out: the next one at that path says more.
    """

    definitions: Mapping[str, Any]
    choose: Callable[[Site], int | float]
    variables: dict[str, Any] = field(default_factory=dict)
    sites: list[Site] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    label: list[tuple[str, Any]] = field(default_factory=list)

    @property
    def drawn(self) -> Drawn:
        """The choices as data."""
        return Drawn(tuple(self.choices))

    def fill(self, value: Any, path: str, branch: str = "", conditions: tuple[Choice, ...] = ()) -> Any:
        """Return a value of the space with every marker in it replaced.

        Args:
            value: The value.
            path: Its JSON path in the candidate.
            branch: See `Site`.
            conditions: See `Site`.
        """
        if isinstance(value, list):
            before = f"{path}." if path else ""
            return [self.fill(item, f"{before}{k}", "", conditions) for k, item in enumerate(value)]
        if not isinstance(value, dict | Mapping):  # a dict is found at once
            return value
        if not is_marker(value):
            before = f"{path}." if path else ""
            return {
                k: self.fill(item, f"{before}{k}" if k != "" else path, "", conditions) for k, item in value.items()
            }
        ((kind, content),) = value.items()
        if kind == "$var":
            if content not in self.variables:  # chosen once for all references
                self.variables[content] = self.fill(self.definitions[content], join_path("$defs", content))
            return copy.deepcopy(self.variables[content])
        if kind == "$repeat":
            times = self.fill(content["times"], join_path(path, "times"), "", conditions)
            return [self.fill(content["of"], join_path(path, k), "", conditions) for k in range(times)]
        return self._choose(Site(path, branch, conditions, value))

    def _choose(self, site: Site) -> Any:
        """Return the value that is chosen at a site, with every marker in it replaced."""
        number = self.choose(site)
        self.sites.append(site)
        self.choices.append((site.path, number))
        if "$choice" not in site.marker:
            self.label.append((site.path, number))
            return number
        chosen = site.marker["$choice"][int(number)]
        if not holds_marker(chosen):
            self.label.append((site.path, copy.deepcopy(chosen)))
            return copy.deepcopy(chosen)
        if not is_marker(chosen):
            name = chosen.get("type") if isinstance(chosen, Mapping) else None
            self.label.append((site.path, name if isinstance(name, str) else f"branch {number}"))
        return self.fill(chosen, site.path, f"{site.branch}/{number}", (*site.conditions, (site.path, number)))


def without_constants(value: Any) -> Any:
    """Return a part of a space without its constants, None if it has nothing else: its walks have the same choices."""
    if isinstance(value, list):
        items = [without_constants(item) for item in value]
        return items if any(item is not None for item in items) else None
    if not isinstance(value, Mapping):
        return None
    if not is_marker(value):
        return {key: kept for key, item in value.items() if (kept := without_constants(item)) is not None} or None
    ((kind, content),) = value.items()
    if kind == "$choice":  # numbers remain, since they may be how often something is repeated
        return {kind: [each if isinstance(each, int) else without_constants(each) for each in content]}
    if kind == "$repeat":
        return {kind: {**content, "of": without_constants(content["of"])}}
    return value
