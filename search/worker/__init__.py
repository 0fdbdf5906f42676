"""The function that a worker of the search runs, and the costs of a candidate before training."""
