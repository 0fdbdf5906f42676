"""Graphs of cells, and models that learn from them: networks, a Gaussian process, support vectors, trivial ones."""
