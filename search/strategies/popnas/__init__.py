"""POPNAS: cells grow block by block, and only those that are predicted to be worth it are trained."""
