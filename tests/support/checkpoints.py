"""Write a checkpoint at once, as a run does in two halves."""

from utils.checkpoint_file import commit_checkpoint, stage_checkpoint


def write_checkpoint(path, content):
    """Write `content` (tensors and plain data only) to `path`, with its checksum."""
    commit_checkpoint(stage_checkpoint(path, content), [path])
