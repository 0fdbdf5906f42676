"""A search over the values that a configuration marks. Only `search/worker/` and `search/__main__.py` import torch."""
