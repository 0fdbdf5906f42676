"""Tables of configurations and the results of their trainings, which a search can use instead of training."""
