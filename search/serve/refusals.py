"""The errors of requests: each is answered with a status of HTTP and one line."""

from utils.errors import ConfigError, EspalierError


class Refusal(EspalierError):
    """A request that is not obeyed.

    Args:
        status: Of HTTP.
        message: Value, rule and repair.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def status_of(error: EspalierError) -> int:
    """Return the status of HTTP that answers an error."""
    if isinstance(error, Refusal):
        return error.status
    return 400 if isinstance(error, ConfigError) else 409
