"""Skill names to skills and clusters: vectors, near-duplicates, HDBSCAN, names, quality, a map."""
