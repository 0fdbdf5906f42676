"""What a search's worker does with a config: judge it before training, train it, test it."""
