"""What came of a study: its record, leaderboard, spreads, importance and winner."""
