"""Parts that loaders of every kind share."""
