"""The supernet of a search as a config: laid over that of the study, and checked."""

from collections.abc import Iterator, Mapping
from typing import Any

from config.faults import join_path, show
from config.loading.load import deep_merge
from config.markers import is_marker
from search.space.space import Space
from search.study.settings import StudyParts
from utils.architecture.course import default_learning_epoch

OVERLAY = "search.strategy.args.supernet"
ANY_GENOTYPE: Mapping[str, Any] = {"strides": [4, 8], "blocks": [{"two_back": "skip", "one_back": "sep_conv_3x3"}]}
"""A small genotype, to check a config into which one is written."""
_OF_THE_STUDY = ("name", "seed", "search", "$defs")
_LIMITS_OF_RESULTS = ("max_params", "max_flops", "max_latency_ms")
_EXAMPLE = (
    '{"arch": {"type": "AutoDeepLabSupernet", "args": {...}}, "trainer": {"type": "BilevelTrainer", "epochs": 40}}'
)


def extreme_genotypes(layers: int, blocks: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the genotypes of a size whose networks take about the least and the most memory in training.

    Maps shrink with the stride faster than they grow in width, and a separable convolution stores the most of them.
    """
    coarsest = [min(4 * 2**layer, 32) for layer in range(1, layers + 1)]
    lightest, heaviest = ([dict.fromkeys(("two_back", "one_back"), name)] * blocks for name in ("skip", "sep_conv_5x5"))
    return {"strides": coarsest, "blocks": lightest}, {"strides": [4] * layers, "blocks": heaviest}


def laid_over(config: Mapping[str, Any], supernet: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the supernets: `supernet` laid over that of a study, as a file is over one it extends."""
    merged = deep_merge(without_search(config), supernet)
    return {key: section for key, section in merged.items() if section is not None}


def without_search(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a study without its search section, which may have markers for the supernet."""
    return {key: section for key, section in config.items() if key != "search"}


def overlay_faults(config: Mapping[str, Any], supernet: Any) -> list[str]:
    """Return the faults of an overlay that leave no config of a supernet."""
    if not isinstance(supernet, Mapping) or not supernet:
        return [
            f"{OVERLAY}: {show(supernet)} must be what is laid over the config to train supernets. Write {_EXAMPLE}."
        ]
    faults = [
        f"{OVERLAY}.{key}: {show(supernet[key])}, and it is that of the study. Remove it."
        for key in _OF_THE_STUDY
        if key in supernet
    ]
    if _type_of(supernet.get("arch")) is None:
        faults.append(f"{OVERLAY}.arch: {show(supernet.get('arch'))} names no supernet. Write {_EXAMPLE}.")
    trainer = laid_over(config, {"trainer": supernet.get("trainer", {})}).get("trainer")
    kind = _type_of(trainer) if isinstance(trainer, Mapping) else None
    if kind in (None, "Trainer"):
        faults.append(
            f'{OVERLAY}.trainer.type: {show(kind)} trains no architecture. Write "BilevelTrainer", or a trainer of '
            "your own that does."
        )
    return faults


def contradictions(
    parts: StudyParts, space: Space, supernet: Mapping[str, Any], decode_epoch: int | None
) -> Iterator[str]:
    """Yield the settings of a study that contradict a search by supernets.

    Args:
        parts: Of the study.
        space: Of the supernets.
        supernet: The overlay.
        decode_epoch: See `SupernetSearch`.
    """
    retrain = parts.retrain
    if retrain is None or retrain.top == 0:
        place = "search.retrain: null" if retrain is None else f"search.retrain.top: {retrain.top}"
        yield (
            f"{place}, and a supernet is no network to use: "
            'the one that is decoded from it has to be trained. Write for example {"top": 1, "seeds": 1}.'
        )
    if len(parts.objectives) > 1 or parts.objectives[0].is_cost:
        yield (
            f"search.objectives: {show([str(each) for each in parts.objectives])}: supernets are compared by one "
            "result of validation data, as their costs are not those of the decoded networks. Write for example "
            '["max val_miou"].'
        )
    costs = [str(each) for each in parts.constraints if each.is_cost]
    if costs:
        yield (
            f"search.constraints: {show(costs)}: these are costs of the supernet, not of the decoded network. Remove "
            "them."
        )
    for name in _LIMITS_OF_RESULTS:
        value = (parts.limits or {}).get(name)
        if value is not None:
            yield (
                f"search.limits.{name}: {value} would limit the supernet, not the decoded network. Remove it; "
                "max_memory_mb limits its training, and arch.args the size of the result."
            )
    search = parts.config.get("search", {})
    for key in ("sampler", "first", "warm_start"):
        if search.get(key) and not space.has_markers:
            yield f"search.{key}: {show(search[key])}, and nothing is marked to be searched. Mark values, or remove it."
    if parts.is_new:
        yield from _contradictions_of_training(parts, supernet, decode_epoch)
    args = parts.config.get("arch", {}).get("args") if isinstance(parts.config.get("arch"), Mapping) else None
    if isinstance(args, Mapping) and args.get("genotype") is not None:
        yield f"arch.args.genotype: {show(args['genotype'])}, and the genotype is what the search finds. Remove it."


def _contradictions_of_training(
    parts: StudyParts, supernet: Mapping[str, Any], decode_epoch: int | None
) -> Iterator[str]:
    """Yield the contradictions between the trainer of the supernets and the epochs at which they are used."""
    epochs = parts.max_epochs
    trainer = laid_over(parts.config, {"trainer": supernet.get("trainer", {})}).get("trainer")
    learns_from = _architecture_from_epoch(trainer, epochs)
    compared = min([*parts.scheduler.fidelities(), epochs])
    place = f"{OVERLAY}.trainer.args.architecture_from_epoch"
    if learns_from is not None and learns_from > epochs:
        yield f"{place}: {learns_from} is after the last of {epochs} epochs. Begin earlier, or train longer."
        learns_from = None
    if learns_from is not None and compared < learns_from:
        yield (
            f"search.scheduler: compares supernets after {compared} epochs, and their architecture is trained from "
            f"epoch {learns_from} on. Set a later grace_period, or remove the scheduler."
        )
    if decode_epoch is not None and not 1 <= decode_epoch <= epochs:
        yield f"search.strategy.args.decode_epoch: {decode_epoch} is none of the {epochs} epochs. Write one, or null."
    elif decode_epoch is not None and learns_from is not None and decode_epoch < learns_from:
        yield (
            f"search.strategy.args.decode_epoch: {decode_epoch} is before epoch {learns_from}, from which on the "
            f"architecture is trained: it would be random. Write {learns_from} to {epochs} or null, or a lower {place}."
        )
    ema = trainer.get("ema") if isinstance(trainer, Mapping) else None
    if ema is not None:
        yield (
            f"{OVERLAY}.trainer.ema: {show(ema)}: supernets would be compared by averaged weights, alpha and beta, and "
            'decoded from those without an average. Write "ema": null there; the final network may have one.'
        )


def unreachable_markers(final: Space, space: Space) -> list[str]:
    """Return the JSON paths of the markers of the final config that no candidate draws."""
    known = {site.identity for site in space.sites}
    return [site.path for site in final.sites if site.identity not in known]


def place_in_study(path: str, supernet: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Return where the value at a JSON path of a supernet's config is in the file of the study."""
    parts = path.split(".")
    depth, of_study = _depth(supernet, parts), _depth(config, parts)
    return path if not path or depth == 0 or (of_study > depth) else join_path(OVERLAY, path)


def _depth(value: Any, parts: list[str]) -> int:
    """Return how many of the keys of a path a value has."""
    for count, part in enumerate(parts):
        if not isinstance(value, Mapping) or part not in value:
            return count
        value = value[part]
    return len(parts)


def _type_of(section: Any) -> Any:
    return section.get("type") if isinstance(section, Mapping) else section


def _architecture_from_epoch(trainer: Any, epochs: int) -> int | None:
    """Return the first epoch in which the architecture is trained; None if it is not known."""
    args = (trainer.get("args") or {}) if isinstance(trainer, Mapping) else None
    if not isinstance(args, Mapping) or is_marker(args):
        return None
    value = args.get("architecture_from_epoch")
    if value is None and str(trainer.get("type")).rpartition(".")[2] == "BilevelTrainer":
        return default_learning_epoch(epochs)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
