"""A search over the values that a configuration marks. Knows no torch: it is given a function that trains."""
