"""InceptionTime (arXiv:1909.04939)."""

from models.inceptiontime.model import InceptionTime as InceptionTime
