"""Annotations of labelling tools, converted to masks of class ids: `python -m data_loader.convert`."""
