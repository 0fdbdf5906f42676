"""Predictors of scores, times and latencies of cells: a task of a worker between two generations of a search."""
