"""Loaders of time series."""
