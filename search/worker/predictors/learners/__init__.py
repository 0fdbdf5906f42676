"""Graphs of cells, and what learns from them: networks, a Gaussian process, support vectors, trivial predictors."""
