"""Output of the search: the live table, lists, exports and TensorBoard."""
