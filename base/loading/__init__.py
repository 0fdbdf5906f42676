"""Loader workers: their start, their batches, and why one of them fails."""
