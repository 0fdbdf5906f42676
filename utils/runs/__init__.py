"""What is known of a run folder without loading torch."""
