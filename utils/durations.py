"""Seconds as a person reads them."""


def duration(seconds: float) -> str:
    """`0:42`, `12:05`, `3:04:05`."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
