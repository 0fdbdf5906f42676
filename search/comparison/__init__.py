"""Comparison of trained runs: read from run folders and studies, grouped by config, as numbers, pictures and CSV."""
