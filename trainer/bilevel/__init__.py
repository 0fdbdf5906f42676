"""Bilevel training: weights on one half of the data, the architecture of a supernet on the other."""
