"""The results of a study: its record, objectives, leaderboard, winner, statistics and importance of values."""
