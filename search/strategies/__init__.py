"""The registry of strategies. Names only: listing it loads nothing."""

from utils.registry import Section

SECTIONS: dict[str, Section] = {
    "strategy": Section(
        expects="search.strategies.base:Strategy",
        entries={
            "MultiFidelity": "search.strategies.multi_fidelity:MultiFidelity",
            "PBT": "search.strategies.pbt:PBT",
            "Grid": "search.strategies.grid:Grid",
            "POPNAS": "search.strategies.popnas.strategy:ProgressiveSearch",
            "AutoDeepLab": "search.strategies.auto_deeplab:SupernetSearch",
        },
    ),
}
