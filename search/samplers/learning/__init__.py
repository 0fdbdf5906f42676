"""Parts of samplers that learn: values that compare, and a model of learning curves."""
