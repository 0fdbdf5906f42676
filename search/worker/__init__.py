"""The function that a worker of the search runs."""
