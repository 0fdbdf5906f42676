"""Cells of blocks: their notation, equivalence, growth, and features as arrays. Neither torch nor a search is needed.

The words, the notation and the search that grows such cells are those of Andrea Falanti et al., "POPNASv3: a
Pareto-Optimal Neural Architecture Search Solution for Image and Time Series Classification",
https://arxiv.org/abs/2212.06735.
"""
