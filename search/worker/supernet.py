"""The checks of a search by supernets that need torch: whether both networks can be trained, and in the memory here."""

import inspect
import logging
from collections.abc import Mapping
from typing import Any

from build import (
    build_loader,
    build_merged_loader,
    build_model,
    build_optimizer,
    build_schedule,
    count_steps,
    read_data_spec,
    registry,
)
from config import class_and_arguments, trainer_options
from config.checking.classes import read_spec
from config.checking.sound import place_of
from config.checking.splits import is_merged
from config.faults import Faults, show
from config.variants import without_pretrained_weights
from search.executors.base import num_gpus_of
from search.executors.processes import Processes
from search.executors.serial import Serial
from search.space.space import Space
from search.strategies.auto_deeplab import with_genotype
from search.strategies.supernet import ANY_GENOTYPE, OVERLAY, extreme_genotypes, place_in_study, without_search
from search.study.settings import StudyParts
from search.worker.candidate import Limits, build_training_step, check_limits
from trainer.inspection.costs import Facts, predict_memory
from trainer.inspection.memory import HOPELESS, free_memory, size_in_words
from trainer.runtime.devices import RunPrecision, choose_devices
from trainer.trainer import TrainingPlan
from utils.errors import ConfigError

logger = logging.getLogger("espalier")


def require_trainable(parts: StudyParts) -> None:
    """Refuse a supernet beyond its limits, and networks that do not nearly fit into the memory of this machine.

    The memory of a training step is predicted from shapes alone. A space with markers, and workers on other machines,
    are left to the limits of the candidates. The final network is tried in the same way, since its training begins only
    after all supernets; its memory is foreseen as a span, see `foresee_final_memory`. The learning-rate schedules of
    both, that of the final network as it is trained again, are built for the steps that they will have.

    Raises:
        ConfigError: It does not fit, or one of the two cannot be trained with the data, loss and schedule given.
        DataError: The data cannot be read.
    """
    executor = parts.executor
    if parts.space.has_markers or not isinstance(executor, Serial | Processes):
        return
    config = next(parts.space.covering()).config
    network = class_and_arguments(config, "arch", registry())[0]
    if isinstance(network, type) and not hasattr(network, "architecture_parameters"):
        raise ConfigError(
            f"{OVERLAY}.arch.type: {show(network.__name__)} has no architecture_parameters, which are searched. Name "
            '"AutoDeepLabSupernet", or a supernet of your own.'
        )
    device = executor.devices[0] if executor.devices else None
    facts, refusal = check_limits(config, Limits(**(parts.limits or {})), devices=device)
    repair = 'Take fewer layers, blocks or a lower filter_multiplier, a smaller input, batch or mixing "inputs".'
    strategy = read_spec(parts.strategy, "search.strategy", Faults())
    overlay = strategy.args.get("supernet", {}) if strategy is not None else {}
    if refusal and facts == Facts():  # it cannot be built, so that nothing is known of its size
        raise ConfigError(_of_supernet(refusal, overlay, parts.config))
    if refusal:
        raise ConfigError(f"{OVERLAY}: {refusal.rstrip('.')}. {repair}")
    final = next(Space(without_search(parts.config)).covering()).config
    final = with_genotype(final, ANY_GENOTYPE)
    final_facts, fault = check_limits(final, devices=device)
    if fault and final_facts == Facts():
        raise ConfigError(fault if place_of(fault) else f"arch: {fault}")
    # The processes of a training divide its batch.
    free = free_memory(choose_devices(config.get("n_gpu"), device)[0]) * num_gpus_of(parts.resources)
    needed = (facts.memory_mb or 0) * 2**20
    if needed > HOPELESS * free:
        raise ConfigError(
            f"{OVERLAY}: a training step needs {size_in_words(needed)}, and {size_in_words(free)} are free. {repair}"
        )
    foresee_final_memory(parts.retrained_config(final, final.get("seed", 0)), network, config, free, device)
    _require_schedules(parts, overlay, config, final, device)


def foresee_final_memory(
    final: Mapping[str, Any], supernet: Any, config: Mapping[str, Any], free: int, device: str | None
) -> None:
    """Refuse a final network that does not nearly fit whatever its genotype; warn of one that may not fit.

    Args:
        final: Config of a final network as it is trained again.
        supernet: The class of the supernets. Genotypes are only known to have the size of its arguments if it names
            `layers` and `blocks`.
        config: Config of a supernet.
        free: Bytes that are free for the training.
        device: That trains it.

    Raises:
        ConfigError: It does not fit.
    """
    parameters, args = inspect.signature(supernet).parameters, class_and_arguments(config, "arch", registry())[1]
    if not {"layers", "blocks"} <= set(parameters):
        return
    size = [args.get(name, parameters[name].default) for name in ("layers", "blocks")]
    lightest, heaviest = (with_genotype(final, each) for each in extreme_genotypes(*size))
    most = predict_memory(build_training_step(heaviest, device))
    if most is None or HOPELESS * most <= free:
        return
    # Where weights need more than maps, the coarse path is the heavier one.
    least, most = sorted((most, predict_memory(build_training_step(lightest, device)) or 0))
    if most <= free:
        return
    needed = f"{size_in_words(least)} to {size_in_words(most)}, which depends on its genotype"
    repair = (
        "Lower arch.args.filter_multiplier, or take a smaller input or batch in train_loader.args, or both in "
        "search.retrain.changes for this training alone."
    )
    if least > HOPELESS * free:
        raise ConfigError(
            f"arch: a training step of the final network needs {needed}, and {size_in_words(free)} are free. {repair}"
        )
    logger.warning(
        "arch: a training step of the final network needs %s, and %s are free: the retraining may fail after all "
        "supernets are trained. %s",
        needed,
        size_in_words(free),
        repair,
    )


def _require_schedules(
    parts: StudyParts,
    overlay: Mapping[str, Any],
    supernet: Mapping[str, Any],
    final: Mapping[str, Any],
    device: str | None,
) -> None:
    """Refuse learning-rate schedules that cannot be built for the steps of their trainings.

    Args:
        parts: Of the study.
        overlay: Settings laid over its config for the supernets.
        supernet: Config of a supernet.
        final: Config of a final network, before the changes of the retraining.
        device: That trains them.

    Raises:
        ConfigError: Lists the faults of both.
    """
    faults = Faults()
    with faults.collecting():
        _build_schedule(parts.retrained_config(final, final.get("seed", 0)), device)
    if faults and parts.retrain is not None and (parts.retrain.epochs is not None or parts.retrain.changes):
        faults[:] = [f"search.retrain: {each}" for each in faults]
    try:
        _build_schedule(supernet, device)
    except ConfigError as error:
        fault = _of_supernet(str(error), overlay, parts.config)
        section, whole = overlay.get("lr_scheduler"), supernet.get("lr_scheduler")
        has_warmup = isinstance(whole, Mapping) and bool(whole.get("warmup"))
        if has_warmup and isinstance(section, Mapping) and "warmup" not in section:
            fault += ' Its warm-up is that of the study\'s lr_scheduler; write "warmup": null to leave it out.'
        faults.add("", fault)
    if faults:
        raise faults.error()


def _build_schedule(config: Mapping[str, Any], devices: str | None) -> None:
    """Build the schedule of a checked config, for a training in one process."""
    if not config.get("lr_scheduler"):
        return
    options = trainer_options(config)
    precision = RunPrecision.from_options(choose_devices(config.get("n_gpu"), devices)[0], options)
    plan = TrainingPlan.from_options(options, precision=precision)
    loader = build_merged_loader(config) if is_merged(config) else build_loader(config, "train")
    assert loader is not None  # a checked config has training data
    loader.is_training = True
    model = build_model(without_pretrained_weights(config), read_data_spec(config, loader))
    build_schedule(config, build_optimizer(config, model), plan, count_steps(config, plan, loader))


def _of_supernet(fault: str, overlay: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Return a fault of a supernet's config with its place in the file of the study."""
    place = place_of(fault)
    where = place_in_study(place, overlay, config) if place else f"{OVERLAY}: "
    return where + fault.removeprefix(place)
