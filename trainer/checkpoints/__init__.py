"""Checkpoints, the run folder and resuming."""
