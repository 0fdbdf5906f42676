"""A training before it begins: its size, its memory, one step of it, its time and disk."""
