"""Trained networks as files for other programs: writing, checking, and running them again."""
