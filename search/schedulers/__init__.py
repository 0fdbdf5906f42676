"""Schedulers, by the names that a configuration uses."""
