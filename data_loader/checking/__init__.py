"""A check of a data set: every sample is read, and the splits are compared."""
