"""Output of a run: console and log file, progress bar, metrics.csv, TensorBoard, trackers, the report of a test."""
