"""Files of a run folder that are read without torch."""
