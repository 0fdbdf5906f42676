"""Jobs of the service: their files, the queue, the process of each, and the configs that they may run."""
