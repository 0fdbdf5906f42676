"""How a search asks a scheduler."""

from search.schedulers.base import Need


def next_job(scheduler):
    """The next job; a candidate that is needed has the next number."""
    asked = scheduler.ask()
    return scheduler.admit(scheduler._book.last_number + 1) if isinstance(asked, Need) else asked


def all_jobs(scheduler):
    """Every job that can be begun now."""
    return list(iter(lambda: next_job(scheduler), None))
