"""Wrappers that change how a trained network looks at an image."""
