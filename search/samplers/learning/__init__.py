"""What samplers learn from results: values that compare, and models of learning curves."""
