"""Inference on images, folders, videos and a webcam."""
