"""The registry of samplers. Names only: listing it loads nothing."""
