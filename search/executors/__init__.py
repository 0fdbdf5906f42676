"""Executors, by the names that a configuration uses."""

from utils.registry import Section

EXECUTORS = Section(
    expects="search.executors.base:Executor",
    entries={
        "serial": "search.executors.serial:Serial",
        "processes": "search.executors.processes:Processes",
        "table": "search.executors.table:TableExecutor",
        "ray": "search.executors.ray_cluster:RayCluster",
    },
)
