"""Sources of images and sinks for results."""
