"""What the search shows: the live table, lists, exports and TensorBoard."""
