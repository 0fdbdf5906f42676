"""Durations as text."""


def duration(seconds: float) -> str:
    """Format seconds as `0:42`, `12:05` or `3:04:05`."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
