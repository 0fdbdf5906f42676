"""The search space: markers, draws and size."""
