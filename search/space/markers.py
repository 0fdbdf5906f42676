"""From markers to values: what each kind of marker means, and what makes one faulty."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from config.faults import Faults, join_path, show, unknown_name
from config.markers import MARKERS, holds_marker, is_marker, unknown_markers
from search.space.outcomes import Outcomes
from utils.seeds import keyed_share

CANDIDATE_SEEDS = "candidate"
OF_THE_WHOLE_SEARCH = ("name", "seed", "search", "trainer.epochs", "trainer.monitor", "trainer.save_dir")
"""Values that hold for all candidates; a candidate's seed follows from that of the search."""
SIGNIFICANT_DIGITS = 6  # of a continuous value: it can be read, and comes out the same everywhere


def plain_json(value: Any) -> str:
    """A value as the same text wherever it is the same."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


class Drawer:
    """Draws one candidate.

    Args:
        study_seed: Of the study.
        index: Number of the candidate.
        definitions: Of the space, for `$var`.

    Attributes:
        drawn: JSON path and value, in the order in which they were drawn.
    """

    def __init__(self, study_seed: int, index: int, definitions: Mapping[str, Any]) -> None:
        self._key = (study_seed, index)
        self._definitions = definitions
        self._variables: dict[str, Any] = {}
        self.drawn: list[tuple[str, Any]] = []

    def fill(self, value: Any, path: str, branch: str = "") -> Any:
        """A value with every marker in it replaced.

        Args:
            value: Of the space.
            path: Its place in the candidate.
            branch: Where the value is a branch of a choice: which one, for a choice may be a branch of a choice.
        """
        if is_marker(value):
            ((marker, content),) = value.items()
            return _DRAW[marker](self, content, path, branch)
        if isinstance(value, Mapping):
            return {key: self.fill(item, join_path(path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item, join_path(path, index)) for index, item in enumerate(value)]
        return value

    def _share(self, path: str, branch: str) -> float:
        return keyed_share(*self._key, path, *([branch] if branch else []))

    def _choice(self, content: list[Any], path: str, branch: str) -> Any:
        place = int(self._share(path, branch) * len(content))
        chosen = content[place]
        if not holds_marker(chosen):
            return self._noted(path, json.loads(json.dumps(chosen)))
        if not is_marker(chosen):
            self._noted(path, branch_name(chosen, place))
        return self.fill(chosen, path, f"{branch}/{place}")

    def _range(self, content: list[int], path: str, branch: str) -> int:
        numbers = range(*content)
        return int(self._noted(path, numbers[int(self._share(path, branch) * len(numbers))]))

    def _uniform(self, content: list[float], path: str, branch: str) -> float:
        low, high = content
        return float(self._noted(path, _rounded(low + (high - low) * self._share(path, branch))))

    def _loguniform(self, content: list[float], path: str, branch: str) -> float:
        low, high = map(math.log, content)
        return float(self._noted(path, _rounded(math.exp(low + (high - low) * self._share(path, branch)))))

    def _repeat(self, content: Mapping[str, Any], path: str, _branch: str) -> list[Any]:
        times = self.fill(content["times"], join_path(path, "times"))
        return [self.fill(content["of"], join_path(path, index)) for index in range(times)]

    def _var(self, name: str, _path: str, _branch: str) -> Any:
        if name not in self._variables:
            self._variables[name] = self.fill(self._definitions[name], join_path("$defs", name))
        return json.loads(json.dumps(self._variables[name]))

    def _noted(self, path: str, value: Any) -> Any:
        self.drawn.append((path, value))
        return value


_DRAW: dict[str, Callable[[Drawer, Any, str, str], Any]] = {
    "$choice": Drawer._choice,
    "$range": Drawer._range,
    "$uniform": Drawer._uniform,
    "$loguniform": Drawer._loguniform,
    "$repeat": Drawer._repeat,
    "$var": Drawer._var,
}


def branch_name(branch: Any, place: int) -> str:
    """What a branch with markers of its own is called: its `type`, else its place."""
    named = branch.get("type") if isinstance(branch, Mapping) else None
    return named if isinstance(named, str) else f"branch {place}"


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def check_markers(config: Mapping[str, Any]) -> None:
    """Find every marker that cannot be drawn from.

    Raises:
        ConfigError: Lists all of them with their JSON paths.
    """
    faults, definitions = Faults(), config.get("$defs", {})
    for path, key in unknown_markers(config):
        faults.add(path, unknown_name("marker", key, MARKERS))
    for key, value in config.items():
        if key == "trainer" and is_marker(value):
            faults.add(key, "the section holds for the whole search. Mark single values in it.")
        elif key != "$defs":
            _check(value, key, definitions, (), faults)
    for path in OF_THE_WHOLE_SEARCH:
        section, _, key = path.rpartition(".")
        holder = config.get(section, {}) if section else config
        if isinstance(holder, Mapping) and holds_marker(holder.get(key)):
            faults.add(path, "it holds for the whole search and is not searched itself. Write it without markers.")
    faults.raise_if_any()


def _check(value: Any, path: str, definitions: Mapping[str, Any], open_names: tuple[str, ...], faults: Faults) -> None:
    if not is_marker(value):
        items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            _check(item, join_path(path, key), definitions, open_names, faults)
        return
    if len(value) != 1:
        faults.add(path, f"{show(value)} has keys beside its marker. A marker stands alone in its object: move them.")
        return
    ((marker, content),) = value.items()
    message = _FAULT[marker](content)
    if message:
        faults.add(join_path(path, marker), f"{show(content)} {message}")
    elif marker == "$choice":
        for index, branch in enumerate(content):
            _check(branch, join_path(path, marker, index), definitions, open_names, faults)
    elif marker == "$repeat":
        place = join_path(path, marker)
        _check(content["of"], join_path(place, "of"), definitions, open_names, faults)
        _check_times(content["times"], join_path(place, "times"), definitions, open_names, faults)
    elif marker == "$var":
        _check_variable(content, path, definitions, open_names, faults)


def _check_times(
    times: Any, path: str, definitions: Mapping[str, Any], open_names: tuple[str, ...], faults: Faults
) -> None:
    own = Faults()
    _check(times, path, definitions, open_names, own)
    if not own.messages:  # so it can be drawn
        for drawn, _ in Outcomes(definitions).of(times, {}):
            if not _is_int(drawn) or drawn < 0:
                own.add(path, f"{show(drawn)} is no number of times. Let it be whole numbers from 0.")
    faults.messages += [message for message in own.messages if message not in faults.messages]


def _check_variable(
    name: str, path: str, definitions: Mapping[str, Any], open_names: tuple[str, ...], faults: Faults
) -> None:
    place = join_path(path, "$var")
    if name not in definitions:
        faults.add(place, unknown_name("definition", name, definitions))
    elif name in open_names:
        chain = " -> ".join((*open_names, name))
        faults.add(place, f"{show(name)} contains itself ({chain}). Break the circle.")
    else:
        _check(definitions[name], f"$defs.{name}", definitions, (*open_names, name), faults)


def _choice_fault(content: Any) -> str:
    return "" if isinstance(content, list) and content else "must be a list of one or more values. Write [a, b]."


def _range_fault(content: Any) -> str:
    numbers = isinstance(content, list) and len(content) in (1, 2, 3) and all(map(_is_int, content))
    if not numbers:
        return "must be [start, stop] or [start, stop, step] of whole numbers. For others write $uniform or $choice."
    if len(content) == 3 and content[2] == 0:
        return "has a step of 0. Write another step."
    return "" if range(*content) else "holds no number: stop itself is left out, as in Python. Write a larger stop."


def _interval_fault(content: Any) -> str:
    if not (isinstance(content, list) and len(content) == 2 and all(map(_is_number, content))):
        return "must be [low, high] of two numbers. Write for example [0.0, 0.5]."
    return "" if content[0] < content[1] else "has low not below high. Exchange them, or write the value itself."


def _log_interval_fault(content: Any) -> str:
    fault = _interval_fault(content)
    return fault or ("" if content[0] > 0 else "begins at or below 0, which has no logarithm. Begin above 0.")


def _repeat_fault(content: Any) -> str:
    if not (isinstance(content, Mapping) and content.keys() == {"of", "times"}):
        return 'must be {"of": VALUE, "times": NUMBER}. Write these two keys.'
    times = content["times"]
    is_count = (_is_int(times) and times >= 0) or is_marker(times)
    return "" if is_count else "has times that is no number of times. Write a whole number from 0, or a marker."


def _variable_fault(content: Any) -> str:
    return "" if isinstance(content, str) else "must be the name of a definition. Write a key of $defs."


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_FAULT: dict[str, Callable[[Any], str]] = {
    "$choice": _choice_fault,
    "$range": _range_fault,
    "$uniform": _interval_fault,
    "$loguniform": _log_interval_fault,
    "$repeat": _repeat_fault,
    "$var": _variable_fault,
}
