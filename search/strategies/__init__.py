"""The registry of strategies. Names only: listing it loads nothing."""
