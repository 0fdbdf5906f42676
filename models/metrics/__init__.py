"""Metrics of segmentation and classification."""
