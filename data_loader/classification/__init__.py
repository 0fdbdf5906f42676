"""Loaders of images with one class each."""
