"""Skills as lists: looked at, searched, compared between runs, edited as CSV, brought in."""
