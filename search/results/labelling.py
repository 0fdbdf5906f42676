"""A grid study of labelling: are many images with some of their labels better than fewer with all of them?"""

import copy
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.results.grid import spreads
from search.results.record import CandidateRecord, Objective
from search.results.spread import CONFIDENCE, INTERVAL_RULE, Spread

IMAGES, MEGAPIXELS = "labelled_images", "labelled_megapixels"
"""Facts of a candidate that hides labels, or counts them with a density of 1."""

LARGEST_RATIO = 1.05
"""Of the labelled megapixels of two conditions that are compared at equal labelling."""

_OF_LABELLING = ("samples", "subset", "subset_seed", "sparse")  # arguments of the loader
_OF_LENGTH = ("epochs", "len_epoch")  # fewer images need more epochs for as many steps


@dataclass(frozen=True)
class Labelling:
    """The labels of a condition.

    Attributes:
        condition: Its name.
        images: Images with labels, the mean over the trainings.
        megapixels: Millions of pixels with a label, likewise.
        density: Fraction of the pixels of an image that has its label.
        pattern: The areas of an image that have labels.
        rest: Everything else of the config, as text.
        spread: The compared result over seeds.
    """

    condition: str
    images: float
    megapixels: float
    density: float
    pattern: str
    rest: str
    spread: Spread

    @property
    def text(self) -> str:
        """Images and density in words."""
        count = f"{self.images:.0f} {'image' if round(self.images) == 1 else 'images'}"
        if self.density == 1:
            return f"{count} with all labels"
        share = "half" if self.density == 0.5 else f"{self.density:.3g}"
        return f"{count} with {share} of their labels, in {self.pattern}"


def labellings(
    candidates: Sequence[CandidateRecord], configs: Mapping[str, Mapping[str, Any]], result: str
) -> list[Labelling]:
    """Return the labelling of each condition whose trainings have counted their labels, in the order of the study.

    Args:
        candidates: Those of a grid study.
        configs: Config of each condition.
        result: Name of the compared result, which begins with `val_` or `test_`.
    """
    found, by_condition = [], spreads(candidates, result.split("_", maxsplit=1)[0] + "_").get(result, {})
    for condition, config in configs.items():
        runs = [each for each in candidates if dict(each.drawn)["condition"] == condition and MEGAPIXELS in each.facts]
        if condition not in by_condition or not runs:
            continue
        rest = copy.deepcopy(dict(config))
        loader = rest.get("train_loader") or rest.get("data_loader") or {}
        args = {name: loader["args"].pop(name, None) for name in _OF_LABELLING}
        for name in _OF_LENGTH:
            rest["trainer"].pop(name, None)
        sparse = args["sparse"] or {}
        found.append(
            Labelling(
                condition,
                math.fsum(each.facts[IMAGES] for each in runs) / len(runs),
                math.fsum(each.facts[MEGAPIXELS] for each in runs) / len(runs),
                density=float(sparse.get("density", 0.5)),
                pattern=sparse.get("pattern", "halves"),
                rest=json.dumps(rest, sort_keys=True),
                spread=by_condition[condition],
            )
        )
    return found


def equal_labellings(found: Sequence[Labelling]) -> list[tuple[Labelling, Labelling]]:
    """Return the pairs of equal labelling: the one of more images and a lower density, and the one of fewer.

    Both have about as many labelled pixels, and differ in nothing else but the length of an epoch and the number of
    epochs.
    """
    return [
        (sparse, dense)
        for sparse in found
        for dense in found
        if sparse.rest == dense.rest
        and sparse.density < dense.density
        and sparse.images > dense.images
        and max(sparse.megapixels, dense.megapixels) <= LARGEST_RATIO * min(sparse.megapixels, dense.megapixels)
    ]


def answer(sparse: Labelling, dense: Labelling, result: str, sign: int) -> str:
    """Return which of two equal labellings is better, with the interval of the difference, as a sentence.

    Args:
        sparse: More images.
        dense: Fewer images with more of their labels.
        result: Name of the compared result.
        sign: 1 if more of it is better, -1 if less is.
    """
    difference = sparse.spread.minus(dense.spread)
    if not difference.values:
        return f'No seed has results of both "{sparse.condition}" and "{dense.condition}" yet.'
    interval, count = difference.interval(), len(difference.values)
    certain, is_decided = "one seed has no interval", False
    if count > 1:
        certain = f"equal with {count} seeds, which has no interval"
    if interval is not None:
        certain = f"{CONFIDENCE:.0%} from {interval[0]:+.4f} to {interval[1]:+.4f}, {count} seeds"
        is_decided = interval[0] > 0 or interval[1] < 0
    many, few = (f'{each.text} ("{each.condition}")' for each in (sparse, dense))
    answer = f"it is open whether {many} or {few} are better"
    if is_decided:
        answer = f"{many} are {'better' if difference.mean * sign > 0 else 'worse'} than {few}"
    means = [Spread({seed: each.spread.values[seed] for seed in difference.values}).mean for each in (sparse, dense)]
    return (
        f"At {sparse.megapixels:.2f} and {dense.megapixels:.2f} labelled megapixels, {answer}: {result} "
        f"{means[0]:.4f} and {means[1]:.4f}, difference {difference.mean:+.4f} ({certain})."
    )


def labelling_sections(
    candidates: Sequence[CandidateRecord], configs: Mapping[str, Mapping[str, Any]], goal: Objective
) -> list[dict[str, Any]]:
    """Return the section of the report that compares conditions by their labels; none unless two have counted them.

    Args:
        candidates: Those of a grid study.
        configs: Config of each condition.
        goal: The objective; its result on test data is compared if there is one.
    """
    for result in (f"test_{goal.name.removeprefix('val_')}", goal.name):
        found = labellings(candidates, configs, result)
        if len(found) > 1:
            break
    else:
        return []
    sentences = [answer(sparse, dense, result, goal.sign) for sparse, dense in equal_labellings(found)]
    text = " ".join(
        [
            *(sentences or ["No two conditions have the same number of labelled pixels and are equal in all else."]),
            f"Equal labelling: within {LARGEST_RATIO - 1:.0%}. Differences are of equal seeds. {INTERVAL_RULE}",
        ]
    )
    head = ["condition", "images", "density", "pattern", "labelled megapixels", result, "deviation", "seeds"]
    rows = [
        [
            each.condition,
            each.images,
            each.density,
            None if each.density == 1 else each.pattern,
            each.megapixels,
            each.spread.mean,
            each.spread.deviation,
            len(each.spread.values),
        ]
        for each in found
    ]
    return [{"title": "Labelling", "text": text, "table": [head, *rows], "plots": [_plot(found, result)]}]


def _plot(found: Sequence[Labelling], result: str) -> dict[str, Any]:
    """Return the plot of the result by labelled megapixels, a line for each density, pattern and kind of training."""
    lines: dict[tuple[str, float, str], list[Labelling]] = {}
    for each in sorted(found, key=lambda each: each.megapixels):
        lines.setdefault((each.rest, each.density, "" if each.density == 1 else each.pattern), []).append(each)
    kinds = list(dict.fromkeys(each.rest for each in found))
    series: list[dict[str, Any]] = []
    for place, ((rest, density, pattern), members) in enumerate(lines.items()):
        first = next(each.condition for each in found if each.rest == rest)
        name = "all labels" if density == 1 else f"density {density:g}, {pattern}"
        name += f' as "{first}"' if len(kinds) > 1 else ""
        x, y = [each.megapixels for each in members], [each.spread.mean for each in members]
        color = f"--series-{place % 8}"
        series.append({"kind": "points", "name": name, "color": color, "x": x, "y": y, "candidates": None})
        series.append({"kind": "line", "name": "", "color": color, "x": x, "y": y})
        series.append({"kind": "links", "name": "", "color": color, "items": list(_bars(members))})
    return {"title": "", "x": {"title": "labelled megapixels"}, "y": {"title": result}, "series": series}


def _bars(members: Iterable[Labelling]) -> Iterable[list[Any]]:
    """Yield the interval of each mean as a link without a candidate."""
    for each in members:
        interval = each.spread.interval()
        if interval is not None:
            yield [None, [each.megapixels] * 2, list(interval)]
