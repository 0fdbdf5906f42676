"""A study: its journal, state, folder and the order of its work."""
