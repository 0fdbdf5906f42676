"""The report of a study, and the comparison of several: one HTML file that needs nothing else."""

from search.report.compare import write_comparison
from search.report.page import write_report

__all__ = ["write_comparison", "write_report"]
