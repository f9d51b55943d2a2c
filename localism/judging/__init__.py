"""Judging: two answers -> a preference; preferences -> win rates; answers -> benchmark scores."""
