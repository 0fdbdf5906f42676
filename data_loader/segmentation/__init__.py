"""Loaders of images and masks."""
