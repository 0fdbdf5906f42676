"""The checks of a search by supernets that need torch: whether both networks can be trained, and in the memory here."""

from build import registry
from config import class_and_arguments
from config.checking.classes import read_spec
from config.checking.sound import place_of
from config.faults import Faults, show
from search.executors.processes import Processes
from search.executors.serial import Serial
from search.space.space import Space
from search.strategies.auto_deeplab import with_genotype
from search.strategies.supernet import ANY_GENOTYPE, OVERLAY, place_in_study, without_search
from search.study.settings import StudyParts
from search.worker.candidate import Limits, check_limits
from trainer.inspection.costs import Facts
from trainer.inspection.memory import HOPELESS, free_memory, size_in_words
from trainer.runtime.devices import choose_devices
from utils.errors import ConfigError


def require_memory(parts: StudyParts) -> None:
    """Refuse a supernet that does not fit into its limits, or not nearly into the memory of this machine.

    The memory of a training step is predicted from shapes alone. A space with markers, and workers on other machines,
    are left to the limits of the candidates. The final network is tried in the same way, since its training begins only
    after all supernets; its memory follows from the genotype and is not foreseen.

    Raises:
        ConfigError: It does not fit, or one of the two cannot be trained with the data and loss of the config.
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
    if refusal and facts == Facts():  # it cannot be built, so that nothing is known of its size
        place, search = place_of(refusal), read_spec(parts.strategy, "search.strategy", Faults())
        overlay = search.args.get("supernet", {}) if search is not None else {}
        where = place_in_study(place, overlay, parts.config) if place else f"{OVERLAY}: "
        raise ConfigError(where + refusal.removeprefix(place))
    if refusal:
        raise ConfigError(f"{OVERLAY}: {refusal.rstrip('.')}. {repair}")
    final = next(Space(without_search(parts.config)).covering()).config
    final_facts, fault = check_limits(with_genotype(final, ANY_GENOTYPE), devices=device)
    if fault and final_facts == Facts():
        raise ConfigError(fault if place_of(fault) else f"arch: {fault}")
    if facts.memory_mb is None:
        return
    needed, free = facts.memory_mb * 2**20, free_memory(choose_devices(config.get("n_gpu"), device)[0])
    if needed > HOPELESS * free:
        raise ConfigError(
            f"{OVERLAY}: a training step needs {size_in_words(needed)}, and {size_in_words(free)} are free. {repair}"
        )
