"""What a search's worker does with a configuration: judge it, train it, test it."""
