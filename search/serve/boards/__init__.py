"""TensorBoard behind the token of the service: a process for each folder that is looked at."""
