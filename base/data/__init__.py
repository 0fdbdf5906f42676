"""How samples are ordered, loaded and collated."""
