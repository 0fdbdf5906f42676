"""The registry of a search: samplers, schedulers, strategies and executors. Names only: listing it loads nothing."""

from search.executors import EXECUTORS
from search.samplers import SECTIONS as SAMPLERS
from search.schedulers import SECTIONS as SCHEDULERS
from search.strategies import SECTIONS as STRATEGIES
from utils.registry import Section

REGISTRY: dict[str, Section] = {**SAMPLERS, **SCHEDULERS, **STRATEGIES, "executor": EXECUTORS}
