"""The registry of samplers. Names only: listing it loads nothing."""

from utils.registry import Section

SECTIONS: dict[str, Section] = {"sampler": Section(expects="search.samplers.base:Sampler", entries={})}
