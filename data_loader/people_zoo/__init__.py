"""Training data of the people model in `models/zoo/`: crops, composites and empty scenes from annotated photos."""
