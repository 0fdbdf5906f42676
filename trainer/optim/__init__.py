"""Parameter groups, learning-rate schedules and weight averaging."""
