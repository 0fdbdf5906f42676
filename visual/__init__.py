"""Where pictures come from, what is made of a prediction, and where the result goes."""
