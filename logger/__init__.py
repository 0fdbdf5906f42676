"""What a run says and leaves behind: console and file log, progress, metrics.csv, TensorBoard, the report of a test."""
