"""The registry of samplers. Names only: listing it loads nothing."""

from utils.registry import Section

SECTIONS: dict[str, Section] = {
    "sampler": Section(
        expects="search.samplers.base:Sampler",
        entries={
            "auto": "search.samplers.auto:AutoSampler",
            "random": "search.samplers.random:RandomSampler",
            "grid": "search.samplers.grid:GridSampler",
            "gp": "search.samplers.gp:GPSampler",
            "sobol": "search.samplers.sobol:SobolSampler",
            "evolution": "search.samplers.evolution:EvolutionSampler",
            "optuna": "search.samplers.optuna_adapter:OptunaSampler",
        },
    ),
}
