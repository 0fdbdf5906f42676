"""What a run says and leaves behind: console and file log, progress, metrics.csv, TensorBoard, the report of a test."""

from logger.console import setup_logging
from logger.metrics_file import MetricsFile
from logger.progress import ProgressBar
from logger.tensorboard import TensorBoardLogger

__all__ = ["MetricsFile", "ProgressBar", "TensorBoardLogger", "setup_logging"]
