"""The registry of schedulers. Names only: listing it loads nothing."""

from utils.registry import Section

SECTIONS: dict[str, Section] = {
    "scheduler": Section(
        expects="search.schedulers.base:Scheduler",
        entries={
            "RandomSearch": "search.schedulers.halving:RandomSearch",
            "SuccessiveHalving": "search.schedulers.halving:SuccessiveHalving",
            "ASHA": "search.schedulers.asha:ASHA",
            "Hyperband": "search.schedulers.halving:Hyperband",
        },
    ),
}
