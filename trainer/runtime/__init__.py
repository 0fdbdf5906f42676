"""Devices, processes, precision and signals of a run."""
